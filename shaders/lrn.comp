#version 450
#extension GL_GOOGLE_include_directive : require
// y[c] = x[c] / (bias + alpha / size * sum of x[c']^2 over c - before <= c' <= c + after)^beta, per pixel.
// C4: [N][C/4][pixels] of vec4; padding lanes are zero and add nothing to the sums. One invocation computes one vec4,
// reading the blocks that its channels' windows reach into.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int before = 2;
layout(constant_id = 2) const int after = 2;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int channels;
    int pixels;
    float scale; // alpha / size
    float beta;
    float bias;
};

void main() {
    int blocks = (channels + 3) / 4;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int from = x_offset + n * x_batch;
        int to = y_offset + n * y_batch + block * pixels;
        int first = max((block * 4 - before + 4 * before) / 4 - before, 0); // floor, of a number that may be negative
        int last = min((block * 4 + 3 + after) / 4, blocks - 1);
        FOR_X(p, pixels) {
            vec4 total = vec4(0.0);
            for (int b = first; b <= last; b++) {
                vec4 v = LOAD(x, from + b * pixels + p);
                v *= v;
                UNROLL for (int lane = 0; lane < 4; lane++) {
                    // how far this channel lies behind each of the four that are computed
                    ivec4 distance = ivec4((b - block) * 4 + lane) - ivec4(0, 1, 2, 3);
                    bvec4 reached = lessThanEqual(abs(2 * distance + (before - after)), ivec4(before + after));
                    total += mix(vec4(0.0), vec4(v[lane]), reached);
                }
            }
            vec4 value = LOAD(x, from + block * pixels + p) * pow(bias + scale * total, vec4(-beta));
            y[to + p] = keep_channels(value, block, channels);
        }
    }
}
