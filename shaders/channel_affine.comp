#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; width = vec4, scalar)
#pragma vkconv exclude(access = storage_texel, width = scalar)
#pragma vkconv exclude(access = uniform_texel, width = scalar)
// y[n][c][p] = x[n][c][p] * scale[c] + shift[c].
// width = vec4: C4, c counts channel blocks; scale and shift are padded with zeros, which keeps padding lanes zero.
// width = scalar: linear. One invocation computes one element of the buffer: one pixel of one channel (block).
#include "tensor.glsl"
#include "grid.glsl"

#if defined(WIDTH_SCALAR)
READ_BUFFER(0, x, float);
READ_BUFFER(1, scale, float);
READ_BUFFER(2, shift, float);
WRITE_BUFFER(3, y, float);
#define AT(buffer, index) buffer[index]
#else
READ_VEC4(0, x);
READ_BUFFER(1, scale, vec4);
READ_BUFFER(2, shift, vec4);
WRITE_BUFFER(3, y, vec4);
#define AT(buffer, index) LOAD(buffer, index)
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int scale_offset;
    int shift_offset;
    int y_offset;
    int y_batch;
    int batches;
    int channels;
    int pixels;
    int dense_batch; // of linear tensors, which have no batch stride of their own
};

void main() {
    FOR_Z(n, batches) FOR_Y(c, channels) {
        int from = x_offset + n * (x_batch + dense_batch) + c * pixels;
        int to = y_offset + n * (y_batch + dense_batch) + c * pixels;
        FOR_X(p, pixels) y[to + p] = AT(x, from + p) * scale[scale_offset + c] + shift[shift_offset + c];
    }
}
