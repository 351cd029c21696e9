#version 450
#extension GL_GOOGLE_include_directive : require
// y[i][j] = sum over taps a, b of wy[i][a] * wx[j][b] * x[iy[i][a]][ix[j][b]] on every map: nearest, linear, cubic
// and antialiased resizing differ only in the tables, which the host computes for each axis. A table holds, for each
// output position, pairs of taps as vec4(index, weight, index, weight); taps that fill up the last pair weigh 0.
// A negative index marks a position outside: its result is `extrapolation`.
// Maps are [batch][map][H][W] of vec4 (width = four: C4) or of scalars. One invocation computes `rows` outputs below
// each other.
#pragma vkconv variants(width = one, four; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = one, access = storage_texel)
#pragma vkconv exclude(width = one, access = uniform_texel)
#include "tensor.glsl"
#include "grid.glsl"

// pairs of taps per output position; 0: the axis stays as it is
layout(constant_id = 1) const int pairs_h = 1;
layout(constant_id = 2) const int pairs_w = 1;
layout(constant_id = 3) const int rows = 1;
layout(constant_id = 4) const bool extrapolate = false;
// the second tap of every pair weighs 0
layout(constant_id = 5) const bool single = false;

#if defined(WIDTH_FOUR)
#define TEXEL vec4
READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
#else
#define TEXEL float
READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, float);
#endif
READ_VEC4(2, table);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int table_offset;
    int batches;
    int maps;
    int in_h;
    int in_w;
    int out_h;
    int out_w;
    int table_w; // where the table of the columns starts
    int channels;
    int maps_per_block;
    float extrapolation;
};

#if defined(WIDTH_FOUR)
#define FETCH(index) LOAD(x, index)
#else
#define FETCH(index) x[index]
#endif

// what is left as a loop over masked lanes costs a CPU driver more than its body
const int UNROLLED_PAIRS = 2;

TEXEL column_pair(int row, int ox, int p) {
    vec4 t = LOAD(table, table_offset + table_w + ox * pairs_w + p);
    return FETCH(row + int(t.x)) * t.y + FETCH(row + int(t.z)) * t.w;
}

TEXEL along_width(int row, int ox, vec4 first) {
    if (pairs_w == 0) return FETCH(row + ox);
    if (single) return FETCH(row + int(first.x)) * first.y;
    TEXEL total = FETCH(row + int(first.x)) * first.y + FETCH(row + int(first.z)) * first.w;
    if (pairs_w <= UNROLLED_PAIRS) {
        UNROLL for (int p = 1; p < pairs_w; p++) total += column_pair(row, ox, p);
    } else {
        for (int p = 1; p < pairs_w; p++) total += column_pair(row, ox, p);
    }
    return total;
}

TEXEL row_pair(int from, vec4 rows_read, int ox, vec4 columns) {
    TEXEL first = along_width(from + int(rows_read.x) * in_w, ox, columns) * rows_read.y;
    if (single) return first;
    return first + along_width(from + int(rows_read.z) * in_w, ox, columns) * rows_read.w;
}

void main() {
    int groups = (out_h + rows - 1) / rows;
    FOR_Z(n, batches) FOR_Y(map, maps) {
        int from = x_offset + n * x_batch + map * in_h * in_w;
        int to = y_offset + n * y_batch + map * out_h * out_w;
        FOR_X(i, groups * out_w) {
            ivec2 place = divide(i, out_w);
            int group = place.x;
            int ox = place.y;
            vec4 first_w = pairs_w > 0 ? LOAD(table, table_offset + table_w + ox * pairs_w) : vec4(0.0);
            UNROLL for (int r = 0; r < rows; r++) if (group * rows + r < out_h) {
                int oy = group * rows + r;
                TEXEL total = TEXEL(0.0);
                // (an index outside is read as 0, so that no lane has to stop)
                bool outside = extrapolate && first_w.x < 0.0;
                vec4 columns = outside ? vec4(0.0, first_w.yzw) : first_w;
                if (pairs_h == 0) {
                    total = along_width(from + oy * in_w, ox, columns);
                } else {
                    vec4 t = LOAD(table, table_offset + oy * pairs_h);
                    if (extrapolate) {
                        outside = outside || t.x < 0.0;
                        t.x = max(t.x, 0.0);
                    }
                    total = row_pair(from, t, ox, columns);
                }
                if (pairs_h <= UNROLLED_PAIRS) {
                    UNROLL for (int p = 1; p < pairs_h; p++)
                        total += row_pair(from, LOAD(table, table_offset + oy * pairs_h + p), ox, columns);
                } else {
                    for (int p = 1; p < pairs_h; p++)
                        total += row_pair(from, LOAD(table, table_offset + oy * pairs_h + p), ox, columns);
                }
                if (extrapolate && outside) {
                    total = TEXEL(extrapolation);
#if defined(WIDTH_FOUR)
                    total = keep_channels(total, divide(map, maps_per_block).x, channels);
#endif
                }
                y[to + oy * out_w + ox] = total;
            }
        }
    }
}
