#version 450
#extension GL_GOOGLE_include_directive : require
// y = x, from dense row-major [N][C][H*W] scalars to C4 [N][ceil(C/4)][H*W] of vec4; padding lanes become 0.
// One invocation moves one vec4: four scalar loads, each coalesced over the lanes, which run over pixels.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int y_batch;
    int batches;
    int channels;
    int pixels;
};

void main() {
    int blocks = (channels + 3) / 4;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int from = x_offset + (n * channels + block * 4) * pixels;
        int to = y_offset + n * y_batch + block * pixels;
        int left = channels - block * 4;
        FOR_X(p, pixels) {
            vec4 v = vec4(x[from + p], 0.0, 0.0, 0.0);
            if (left > 1) v.y = x[from + p + pixels];
            if (left > 2) v.z = x[from + p + 2 * pixels];
            if (left > 3) v.w = x[from + p + 3 * pixels];
            y[to + p] = v;
        }
    }
}
