#version 450
#extension GL_GOOGLE_include_directive : require
// y[y_start + sum i_d * y_stride_d] = x[x_start + sum i_d * x_stride_d] for all indices i of up to six dimensions,
// the innermost last. Strides and starts count scalars, or vec4s with width = four (also C4 maps, whose batches may
// be wider). Scalars are moved as bits, whatever their type. One invocation moves one element; the lanes run over the
// innermost dimension, or over the inner two where that one is short.
#pragma vkconv variants(width = one, four; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = one, access = storage_texel)
#pragma vkconv exclude(width = one, access = uniform_texel)
#include "tensor.glsl"
#include "grid.glsl"

// how many of the dimensions 0..3 are longer than one: the innermost of them
layout(constant_id = 1) const int outer_dims = 4;
// whether x covers the inner two dimensions together
layout(constant_id = 2) const bool inner_two = false;

#if defined(WIDTH_FOUR)
READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
#else
READ_BUFFER(0, x, int);
WRITE_BUFFER(1, y, int);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int x_start;
    int y_start;
    int size[6];
    int x_stride[6];
    int y_stride[6];
};

void main() {
    int outer = size[0] * size[1] * size[2] * size[3];
    int height = inner_two ? 1 : size[4];
    int width = inner_two ? size[4] * size[5] : size[5];
    FOR_Z(z, outer) {
        int from_z = x_offset + x_start;
        int to_z = y_offset + y_start;
        int rest = z;
        UNROLL for (int d = 3; d >= 0; d--) {
            if (d < 4 - outer_dims) break;
            ivec2 place = d == 4 - outer_dims ? ivec2(0, rest) : divide(rest, size[d]);
            from_z += place.y * x_stride[d];
            to_z += place.y * y_stride[d];
            rest = place.x;
        }
        FOR_Y(j, height) FOR_X(i, width) {
            ivec2 at = inner_two ? divide(i, size[5]) : ivec2(j, i);
            int from = from_z + at.x * x_stride[4] + at.y * x_stride[5];
            int to = to_z + at.x * y_stride[4] + at.y * y_stride[5];
#if defined(WIDTH_FOUR)
            y[to] = LOAD(x, from);
#else
            y[to] = x[from];
#endif
        }
    }
}
