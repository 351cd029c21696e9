#version 450
#extension GL_GOOGLE_include_directive : require
// y[i0][i1][i2][i3][i4] = x[t0[i0] + t1[i1] + t2[i2] + t3[i3] + t4[i4]], where the host's table t_d says for each
// index of axis d how far into x it reads, or -1: then the element is `fill`. Any padding is such a table.
// width = four: C4 tensors as (N, C / 4, D, H, W) of vec4; width = one: scalars, moved as bits whatever their type.
// One invocation moves one element.
#pragma vkconv variants(width = one, four; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = one, access = storage_texel)
#pragma vkconv exclude(width = one, access = uniform_texel)
#include "tensor.glsl"
#include "grid.glsl"

#if defined(WIDTH_FOUR)
READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
#else
READ_BUFFER(0, x, int);
WRITE_BUFFER(1, y, int);
#endif
READ_BUFFER(2, table, int);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int table_offset;
    int size[5];
    int y_stride; // from one i0 to the next
    int channels;
    int fill;     // the bits of the value
};

void main() {
    int t1 = table_offset + size[0];
    int t2 = t1 + size[1];
    int t3 = t2 + size[2];
    int t4 = t3 + size[3];
    FOR_Z(z, size[0] * size[1] * size[2]) {
        ivec2 low = divide(z, size[2]);
        ivec2 high = divide(low.x, size[1]);
        int i0 = high.x;
        int i1 = high.y;
        int i2 = low.y;
        ivec3 outer = ivec3(table[table_offset + i0], table[t1 + i1], table[t2 + i2]);
#if defined(WIDTH_FOUR)
        vec4 filled = keep_channels(vec4(intBitsToFloat(fill)), i1, channels);
#endif
        FOR_Y(i3, size[3]) {
            int row = table[t3 + i3];
            bool row_inside = min(min(outer.x, outer.y), min(outer.z, row)) >= 0;
            int from = x_offset + outer.x + outer.y + outer.z + row;
            int to = y_offset + i0 * y_stride + ((i1 * size[2] + i2) * size[3] + i3) * size[4];
            FOR_X(i4, size[4]) {
                int column = table[t4 + i4];
                bool inside = row_inside && column >= 0;
#if defined(WIDTH_FOUR)
                y[to + i4] = inside ? LOAD(x, from + column) : filled;
#else
                y[to + i4] = inside ? x[from + column] : fill;
#endif
            }
        }
    }
}
