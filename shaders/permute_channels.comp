#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][c][p] = x[n][channel[c]][p], or 0: some channels of x, in any order, to some rows of y. `order` lists the rows.
//
// C4 (layout = c4): a row is a vec4 of channels, one invocation computes one vec4 of y at a time from the BLOCKS of x
// that its channels lie in. Six numbers a row: the vec4 of y; for lane l of it the bits 4 l to 4 l + 3 with the number
// of the block (of those listed) times four plus the lane in it, and bit 16 + l which is 0 where the lane is 0; then up
// to four vec4s of x.
// Linear: a row is a channel, one invocation moves one scalar at a time, as bits. Two numbers a row: the channel of y,
// that of x or -1.
// The lanes run over pixels, so that the order is read once for all of them.
#pragma vkconv variants(layout = c4, linear; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(layout = linear, access = storage_texel)
#pragma vkconv exclude(layout = linear, access = uniform_texel)
#include "tensor.glsl"
#include "grid.glsl"

#if defined(LAYOUT_C4)
layout(constant_id = 1) const int BLOCKS = 4; // of x that a vec4 of y is made of, at most
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
    int rows;
    int pixels;
    int x_rows; // linear: channels of x, of y
    int y_rows;
};

#if defined(LAYOUT_C4)
float pick(vec4 a, vec4 b, vec4 c, vec4 d, int code, bool there) {
    int lane = code & 3;
    int block = (code >> 2) & 3;
    float v = a[lane];
    if (BLOCKS > 1) v = block == 1 ? b[lane] : v;
    if (BLOCKS > 2) v = block == 2 ? c[lane] : v;
    if (BLOCKS > 3) v = block == 3 ? d[lane] : v;
    return there ? v : 0.0;
}
#endif

void main() {
#if defined(LAYOUT_C4)
    FOR_Z(n, batches) FOR_Y(row, rows) {
        int at = order_offset + row * 6;
        int to = y_offset + n * y_batch + order[at] * pixels;
        int codes = order[at + 1];
        int from = x_offset + n * x_batch;
        ivec4 block = ivec4(order[at + 2], 0, 0, 0);
        if (BLOCKS > 1) block.y = order[at + 3];
        if (BLOCKS > 2) block.z = order[at + 4];
        if (BLOCKS > 3) block.w = order[at + 5];
        block = from + block * pixels;
        FOR_X(p, pixels) {
            vec4 a = LOAD(x, block.x + p);
            vec4 b = a, c = a, d = a;
            if (BLOCKS > 1) b = LOAD(x, block.y + p);
            if (BLOCKS > 2) c = LOAD(x, block.z + p);
            if (BLOCKS > 3) d = LOAD(x, block.w + p);
            y[to + p] = vec4(pick(a, b, c, d, codes, (codes & 0x10000) != 0),
                             pick(a, b, c, d, codes >> 4, (codes & 0x20000) != 0),
                             pick(a, b, c, d, codes >> 8, (codes & 0x40000) != 0),
                             pick(a, b, c, d, codes >> 12, (codes & 0x80000) != 0));
        }
    }
#else
    FOR_Z(n, batches) FOR_Y(row, rows) {
        int channel = order[order_offset + row * 2 + 1];
        int from = x_offset + (n * x_rows + channel) * pixels;
        int to = y_offset + (n * y_rows + order[order_offset + row * 2]) * pixels;
        FOR_X(p, pixels) y[to + p] = channel >= 0 ? x[from + p] : 0;
    }
#endif
}
