#version 450
#extension GL_GOOGLE_include_directive : require
// y = condition ? a : b element by element with broadcasting; linear. Elements are copied as 32 bits, whatever they are.
// Each operand is a strided array of 6 dimensions `size`; a stride of 0 broadcasts. y is dense. Strides count the
// elements of the buffers, vec4s or scalars; those of an operand with `splat`, read as one scalar for the whole vec4,
// count scalars.
// The last `lane_dimensions` dimensions run over the lanes, the others over workgroups. One invocation computes one
// element of the buffer.
#pragma vkconv variants(width = vec4, scalar)
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int lane_dimensions = 1;

layout(constant_id = 2) const int condition_splat = 0;
layout(constant_id = 3) const int a_splat = 0;
layout(constant_id = 4) const int b_splat = 0;

#if defined(WIDTH_VEC4)
READ_BUFFER(0, condition, ivec4);
READ_BUFFER(1, a, ivec4);
READ_BUFFER(2, b, ivec4);
WRITE_BUFFER(3, y, ivec4);
#define AT(buffer, i, splat) (splat != 0 ? ivec4(buffer[(i) >> 2][(i) & 3]) : buffer[i])
#define CHOOSE(c, first, second) mix(second, first, notEqual(c, ivec4(0)))
#define OFFSET(offset, splat) (offset * (splat != 0 ? 4 : 1))
#else
READ_BUFFER(0, condition, int);
READ_BUFFER(1, a, int);
READ_BUFFER(2, b, int);
WRITE_BUFFER(3, y, int);
#define AT(buffer, i, splat) buffer[i]
#define CHOOSE(c, first, second) (c != 0 ? first : second)
#define OFFSET(offset, splat) offset
#endif
layout(push_constant) uniform Push {
    int condition_offset;
    int a_offset;
    int b_offset;
    int y_offset;
    int size[6];
    int condition_stride[6];
    int a_stride[6];
    int b_stride[6];
};

void main() {
    int rows = lane_dimensions == 1 ? size[3] * size[4] : lane_dimensions == 2 ? size[3] : 1;
    int width = lane_dimensions == 1 ? size[5] : lane_dimensions == 2 ? size[4] * size[5] : size[3] * size[4] * size[5];
    FOR_Z(slab, size[0] * size[1] * size[2]) {
        int i2 = slab % size[2], i01 = slab / size[2];
        int i1 = i01 % size[1], i0 = i01 / size[1];
        int c_slab = OFFSET(condition_offset, condition_splat);
        int a_slab = OFFSET(a_offset, a_splat), b_slab = OFFSET(b_offset, b_splat);
        c_slab += i0 * condition_stride[0] + i1 * condition_stride[1] + i2 * condition_stride[2];
        a_slab += i0 * a_stride[0] + i1 * a_stride[1] + i2 * a_stride[2];
        b_slab += i0 * b_stride[0] + i1 * b_stride[1] + i2 * b_stride[2];
        FOR_Y(row, rows) {
            // dimensions 3 and 4, as far as they are not the lanes'
            int r3 = lane_dimensions == 1 ? row / size[4] : row;
            int r4 = lane_dimensions == 1 ? row - r3 * size[4] : 0;
            int c_row = c_slab + r3 * condition_stride[3] + r4 * condition_stride[4];
            int a_row = a_slab + r3 * a_stride[3] + r4 * a_stride[4];
            int b_row = b_slab + r3 * b_stride[3] + r4 * b_stride[4];
            int y_row = y_offset + (slab * rows + row) * width;
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
                int c = c_row + i3 * condition_stride[3] + i4 * condition_stride[4] + i5 * condition_stride[5];
                int i = a_row + i3 * a_stride[3] + i4 * a_stride[4] + i5 * a_stride[5];
                int j = b_row + i3 * b_stride[3] + i4 * b_stride[4] + i5 * b_stride[5];
                y[y_row + lane] = CHOOSE(AT(condition, c, condition_splat), AT(a, i, a_splat), AT(b, j, b_splat));
            }
        }
    }
}
