#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(width = vec4, scalar; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = scalar, access = storage_texel)
#pragma vkconv exclude(width = scalar, access = uniform_texel)
// y[n][c][p] = activate((x[n][c][p] - mean) * factor + bias) with (mean, factor, bias) = table[n][c]. The mean is
// subtracted first: x * factor - mean * factor would lose what is common to both.
// width = vec4: C4, c counts channel blocks.  width = scalar: linear.
// One invocation computes one element of the buffer: one pixel of one channel (block).
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"

layout(constant_id = 10) const int ACTIVATION = ACT_NONE;

#if defined(WIDTH_VEC4)
#define T vec4
READ_VEC4(0, x);
READ_BUFFER(1, table, vec4);
WRITE_BUFFER(2, y, vec4);
#else
#define T float
READ_BUFFER(0, x, float);
READ_BUFFER(1, table, float);
WRITE_BUFFER(2, y, float);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int table_offset;
    int y_offset;
    int y_batch;
    int batches;
    int channels; // of the buffers: channel blocks for vec4
    int last;     // channels of the last block, for vec4
    int pixels;
    int dense_batch;
    float alpha;
    float beta;
};

void main() {
    FOR_Z(n, batches) FOR_Y(c, channels) {
        int from = x_offset + n * (x_batch + dense_batch) + c * pixels;
        int to = y_offset + n * (y_batch + dense_batch) + c * pixels;
        int entry = table_offset + (n * channels + c) * 3;
        T mean = table[entry], factor = table[entry + 1], bias = table[entry + 2];
        FOR_X(p, pixels) {
            T v = (LOAD(x, from + p) - mean) * factor + bias;
#if defined(WIDTH_VEC4)
            v = activate(ACTIVATION, v, alpha, beta);
            v = keep_channels(v, 0, c == channels - 1 ? last : 4);
#else
            v = activate(ACTIVATION, vec4(v), alpha, beta).x;
#endif
            y[to + p] = v;
        }
    }
}
