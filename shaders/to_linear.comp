#version 450
#extension GL_GOOGLE_include_directive : require
// y = x, from C4 [N][ceil(C/4)][H*W] of vec4 to dense row-major [N][C][H*W] scalars.
// One invocation moves one vec4: four scalar stores, each coalesced over the lanes, which run over pixels.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

READ_VEC4(0, x);
WRITE_BUFFER(1, y, float);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int batches;
    int channels;
    int pixels;
};

void main() {
    int blocks = (channels + 3) / 4;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int from = x_offset + n * x_batch + block * pixels;
        int to = y_offset + (n * channels + block * 4) * pixels;
        int left = channels - block * 4;
        FOR_X(p, pixels) {
            vec4 v = LOAD(x, from + p);
            y[to + p] = v.x;
            if (left > 1) y[to + p + pixels] = v.y;
            if (left > 2) y[to + p + 2 * pixels] = v.z;
            if (left > 3) y[to + p + 3 * pixels] = v.w;
        }
    }
}
