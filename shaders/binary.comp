#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; width = vec4, scalar; operand = float, int; result = float, int)
#pragma vkconv exclude(access = storage_texel, width = scalar)
#pragma vkconv exclude(access = uniform_texel, width = scalar)
#pragma vkconv exclude(width = vec4, operand = int)
#pragma vkconv exclude(operand = int, result = float)
// y = f(a, b) element by element with broadcasting; `kind` as in vkconv/ops/binary_codes.py.
// Each tensor is a strided array of up to 6 dimensions `size`; a stride of 0 broadcasts. Strides count the elements of
// the buffer: vec4s for width = vec4 (four channels in C4, four neighbours in linear), else scalars. An operand with
// `a_splat` is read as one scalar for the whole vec4, and its strides count scalars.
// The last `lane_dimensions` dimensions run over the lanes, the others over workgroups. `masked`: the result is C4 with
// its channel blocks in dimension 2, and the padding lanes after `channels` become 0.
// One invocation computes one element of the buffer.
#include "tensor.glsl"
#include "binary_functions.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int kind = BINARY_ADD;
layout(constant_id = 2) const int lane_dimensions = 1;
layout(constant_id = 3) const int a_splat = 0;
layout(constant_id = 4) const int b_splat = 0;
layout(constant_id = 5) const int masked = 0;

#if defined(WIDTH_VEC4)
READ_VEC4(0, a);
READ_VEC4(1, b);
#else
#if defined(OPERAND_INT)
READ_BUFFER(0, a, int);
READ_BUFFER(1, b, int);
#else
READ_BUFFER(0, a, float);
READ_BUFFER(1, b, float);
#endif
#endif
#if defined(WIDTH_VEC4) && defined(RESULT_INT)
WRITE_BUFFER(2, y, ivec4);
#elif defined(WIDTH_VEC4)
WRITE_BUFFER(2, y, vec4);
#elif defined(RESULT_INT)
WRITE_BUFFER(2, y, int);
#else
WRITE_BUFFER(2, y, float);
#endif

layout(push_constant) uniform Push {
    int a_offset;
    int b_offset;
    int y_offset;
    int channels;
    int size[6];
    int a_stride[6];
    int b_stride[6];
    int y_stride[6];
};

#if defined(WIDTH_VEC4)
vec4 load_a(int i) { return a_splat != 0 ? vec4(LOAD(a, i >> 2)[i & 3]) : LOAD(a, i); }
vec4 load_b(int i) { return b_splat != 0 ? vec4(LOAD(b, i >> 2)[i & 3]) : LOAD(b, i); }
#endif

// y[k] from a[i] and b[j]; `block` is the channel block where the result is masked
void compute(int i, int j, int k, int block) {
#if defined(WIDTH_SCALAR) && defined(OPERAND_INT)
    y[k] = binary_int(kind, a[i], b[j]);
#elif defined(WIDTH_SCALAR) && defined(RESULT_INT)
    y[k] = compare(kind, vec4(a[i]), vec4(b[j])).x;
#elif defined(WIDTH_SCALAR)
    y[k] = binary(kind, vec4(a[i]), vec4(b[j])).x;
#elif defined(RESULT_INT)
    y[k] = compare(kind, load_a(i), load_b(j));
#else
    vec4 v = binary(kind, load_a(i), load_b(j));
    y[k] = masked != 0 ? keep_channels(v, block, channels) : v;
#endif
}

void main() {
    int a_start = a_offset * (a_splat != 0 ? 4 : 1);
    int b_start = b_offset * (b_splat != 0 ? 4 : 1);
    int rows = lane_dimensions == 1 ? size[3] * size[4] : lane_dimensions == 2 ? size[3] : 1;
    int width = lane_dimensions == 1 ? size[5] : lane_dimensions == 2 ? size[4] * size[5] : size[3] * size[4] * size[5];
    FOR_Z(slab, size[0] * size[1] * size[2]) {
        int i2 = slab % size[2], i01 = slab / size[2];
        int i1 = i01 % size[1], i0 = i01 / size[1];
        int a_slab = a_start + i0 * a_stride[0] + i1 * a_stride[1] + i2 * a_stride[2];
        int b_slab = b_start + i0 * b_stride[0] + i1 * b_stride[1] + i2 * b_stride[2];
        int y_slab = y_offset + i0 * y_stride[0] + i1 * y_stride[1] + i2 * y_stride[2];
        FOR_Y(row, rows) {
            // dimensions 3 and 4, as far as they are not the lanes'
            int r3 = lane_dimensions == 1 ? row / size[4] : row;
            int r4 = lane_dimensions == 1 ? row - r3 * size[4] : 0;
            int a_row = a_slab + r3 * a_stride[3] + r4 * a_stride[4];
            int b_row = b_slab + r3 * b_stride[3] + r4 * b_stride[4];
            int y_row = y_slab + r3 * y_stride[3] + r4 * y_stride[4];
            FOR_X(lane, width) {
                int i3 = 0, i4 = 0, i5 = lane;
                if (lane_dimensions > 1) {
                    ivec2 parts = divide(lane, size[5]);
                    i4 = parts.x;
                    i5 = parts.y;
                }
                if (lane_dimensions > 2) {
                    ivec2 parts = divide(i4, size[4]);
                    i3 = parts.x;
                    i4 = parts.y;
                }
                compute(a_row + i3 * a_stride[3] + i4 * a_stride[4] + i5 * a_stride[5],
                        b_row + i3 * b_stride[3] + i4 * b_stride[4] + i5 * b_stride[5],
                        y_row + i3 * y_stride[3] + i4 * y_stride[4] + i5 * y_stride[5], i2);
            }
        }
    }
}
