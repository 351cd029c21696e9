#version 450
#extension GL_GOOGLE_include_directive : require
// y = x, from C4 [N][ceil(C/4)][H*W] of vec4 to dense row-major [N][C][H*W] scalars.
// pixels = one: one invocation moves one vec4: four scalar stores, each coalesced over the lanes, which run over pixels.
// pixels = four: one invocation moves four pixels, which y holds side by side in a vec4 per channel: a quarter of the
// stores, which are what a CPU driver spends its time on.
#pragma vkconv variants(pixels = one, four; access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

READ_VEC4(0, x);
#if defined(PIXELS_FOUR)
WRITE_BUFFER(1, y, vec4);
#else
WRITE_BUFFER(1, y, float);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int batches;
    int channels;
    int pixels; // per channel; of vec4s of y, where that has vec4s
};

void main() {
    int blocks = (channels + 3) / 4;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int to = y_offset + (n * channels + block * 4) * pixels;
        int left = channels - block * 4;
#if defined(PIXELS_FOUR)
        int from = x_offset + n * x_batch + block * pixels * 4;
        FOR_X(p, pixels) {
            vec4 a = LOAD(x, from + p * 4), b = LOAD(x, from + p * 4 + 1);
            vec4 c = LOAD(x, from + p * 4 + 2), d = LOAD(x, from + p * 4 + 3);
            y[to + p] = vec4(a.x, b.x, c.x, d.x);
            if (left > 1) y[to + p + pixels] = vec4(a.y, b.y, c.y, d.y);
            if (left > 2) y[to + p + 2 * pixels] = vec4(a.z, b.z, c.z, d.z);
            if (left > 3) y[to + p + 3 * pixels] = vec4(a.w, b.w, c.w, d.w);
        }
#else
        int from = x_offset + n * x_batch + block * pixels;
        FOR_X(p, pixels) {
            vec4 v = LOAD(x, from + p);
            y[to + p] = v.x;
            if (left > 1) y[to + p + pixels] = v.y;
            if (left > 2) y[to + p + 2 * pixels] = v.z;
            if (left > 3) y[to + p + 3 * pixels] = v.w;
        }
#endif
    }
}
