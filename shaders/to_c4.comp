#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(pixels = one, four; access = storage_texel, uniform_texel, ssbo; affine = off, on)
#pragma vkconv exclude(pixels = one, access = storage_texel)
#pragma vkconv exclude(pixels = one, access = uniform_texel)
// y = x, from dense row-major [N][C][H*W] scalars to C4 [N][ceil(C/4)][H*W] of vec4; padding lanes become 0.
// affine = on: y[n][c] = x[n][c] * scale[c] + shift[c].
// pixels = one: one invocation moves one vec4: four scalar loads, each coalesced over the lanes, which run over pixels.
// pixels = four: one invocation moves four pixels that x holds side by side in a vec4 per channel: a quarter of the
// loads, which are what a CPU driver spends its time on.
#include "tensor.glsl"
#include "grid.glsl"

#if defined(PIXELS_FOUR)
READ_VEC4(0, x);
#else
READ_BUFFER(0, x, float);
#endif
WRITE_BUFFER(1, y, vec4);
#if defined(AFFINE_ON)
READ_BUFFER(2, scale, vec4); // padded with zeros, as shift
READ_BUFFER(3, shift, vec4);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int y_batch;
    int batches;
    int channels;
    int pixels; // per channel; of vec4s of x, where that has vec4s
#if defined(AFFINE_ON)
    int scale_offset;
    int shift_offset;
#endif
};

#if defined(AFFINE_ON)
#define STORE(index, value) y[index] = (value) * factor + addend
#else
#define STORE(index, value) y[index] = value
#endif

void main() {
    int blocks = (channels + 3) / 4;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int from = x_offset + (n * channels + block * 4) * pixels;
        int left = channels - block * 4;
#if defined(AFFINE_ON)
        vec4 factor = scale[scale_offset + block], addend = shift[shift_offset + block];
#endif
#if defined(PIXELS_FOUR)
        int to = y_offset + n * y_batch + block * pixels * 4;
        FOR_X(p, pixels) {
            mat4 v = mat4(LOAD(x, from + p), vec4(0.0), vec4(0.0), vec4(0.0));
            if (left > 1) v[1] = LOAD(x, from + p + pixels);
            if (left > 2) v[2] = LOAD(x, from + p + 2 * pixels);
            if (left > 3) v[3] = LOAD(x, from + p + 3 * pixels);
            STORE(to + p * 4, vec4(v[0].x, v[1].x, v[2].x, v[3].x));
            STORE(to + p * 4 + 1, vec4(v[0].y, v[1].y, v[2].y, v[3].y));
            STORE(to + p * 4 + 2, vec4(v[0].z, v[1].z, v[2].z, v[3].z));
            STORE(to + p * 4 + 3, vec4(v[0].w, v[1].w, v[2].w, v[3].w));
        }
#else
        int to = y_offset + n * y_batch + block * pixels;
        FOR_X(p, pixels) {
            vec4 v = vec4(x[from + p], 0.0, 0.0, 0.0);
            if (left > 1) v.y = x[from + p + pixels];
            if (left > 2) v.z = x[from + p + 2 * pixels];
            if (left > 3) v.w = x[from + p + 3 * pixels];
            STORE(to + p, v);
        }
#endif
    }
}
