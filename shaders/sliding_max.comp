#version 450
#extension GL_GOOGLE_include_directive : require
// y[i] = max of x[i - pad .. i - pad + taps - 1] along one axis of every map, at stride 1 (taps >= 4). A large
// square maximum is this along W, then along H.
// C4: maps [H][W] of vec4. One invocation computes four neighbours along the axis: what all four windows share is
// reduced once, so a result costs about taps / 4 + 3 loads instead of taps.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int taps = 5;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int blocks;
    int height;
    int width;
    int pad;
    int along_width;
};

void main() {
    // the axis is no specialization: both share a pipeline, which takes llvmpipe 0.05 s to compile
    bool across = along_width != 0;
    int size = across ? width : height;
    int step = across ? 1 : width;
    int groups = (size + 3) / 4;
    int inner = across ? groups : width;
    int pixels = height * width;
    FOR_Z(n, batches) FOR_Y(block, blocks) FOR_X(i, groups * (across ? height : width)) {
        ivec2 place = divide(i, inner);
        int outer = place.x;
        int rest = place.y;
        int line = across ? outer * width : rest;
        int first = (across ? rest : outer) * 4;
        int from = x_offset + n * x_batch + block * pixels + line;
        int to = y_offset + n * y_batch + block * pixels + line;
        int start = first - pad;
        // a position outside the line is replaced by the nearest inside, which the window holds as well
#define AT(k) LOAD(x, from + clamp(start + (k), 0, size - 1) * step)
        vec4 shared_part = AT(3);
        UNROLL for (int k = 4; k < taps; k++) shared_part = max(shared_part, AT(k));
        vec4 left2 = AT(2);
        vec4 left1 = max(AT(1), left2);
        vec4 left0 = max(AT(0), left1);
        vec4 right0 = AT(taps);
        vec4 right1 = max(AT(taps + 1), right0);
        vec4 right2 = max(AT(taps + 2), right1);
        y[to + first * step] = max(shared_part, left0);
        if (first + 1 < size) y[to + (first + 1) * step] = max(shared_part, max(left1, right0));
        if (first + 2 < size) y[to + (first + 2) * step] = max(shared_part, max(left2, right1));
        if (first + 3 < size) y[to + (first + 3) * step] = max(shared_part, right2);
    }
}
