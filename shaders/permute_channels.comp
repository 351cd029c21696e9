#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][c][p] = x[n][order[c]][p]: some channels of x, in any order. C4 (layout = c4): one invocation computes one vec4
// of y from up to four of x; `order` is padded to whole vec4s with -1, which gives 0. Linear: one invocation moves one
// scalar, as bits. The lanes run over pixels, so that `order` is read once for all of them.
#pragma vkconv variants(layout = c4, linear; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(layout = linear, access = storage_texel)
#pragma vkconv exclude(layout = linear, access = uniform_texel)
#include "tensor.glsl"
#include "grid.glsl"

#if defined(LAYOUT_C4)
READ_VEC4(0, x);
WRITE_BUFFER(2, y, vec4);
#else
READ_BUFFER(0, x, int);
WRITE_BUFFER(2, y, int);
#endif
READ_BUFFER(1, order, int);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int order_offset;
    int y_offset;
    int y_batch;
    int batches;
    int rows;   // vec4s of channels in y; linear: channels
    int pixels;
    int x_rows; // linear: channels of x
};

void main() {
#if defined(LAYOUT_C4)
    FOR_Z(n, batches) FOR_Y(row, rows) {
        int at = order_offset + row * 4;
        ivec4 channel = ivec4(order[at], order[at + 1], order[at + 2], order[at + 3]);
        ivec4 from = x_offset + n * x_batch + (max(channel, 0) >> 2) * pixels;
        ivec4 lane = channel & 3;
        int to = y_offset + n * y_batch + row * pixels;
        FOR_X(p, pixels) {
            vec4 v = vec4(LOAD(x, from.x + p)[lane.x], 0.0, 0.0, 0.0);
            if (channel.y >= 0) v.y = LOAD(x, from.y + p)[lane.y];
            if (channel.z >= 0) v.z = LOAD(x, from.z + p)[lane.z];
            if (channel.w >= 0) v.w = LOAD(x, from.w + p)[lane.w];
            y[to + p] = v;
        }
    }
#else
    FOR_Z(n, batches) FOR_Y(row, rows) {
        int from = x_offset + (n * x_rows + order[order_offset + row]) * pixels;
        int to = y_offset + (n * rows + row) * pixels;
        FOR_X(p, pixels) y[to + p] = x[from + p];
    }
#endif
}
