#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][c] = mean or max over all pixels of x[n][c].
// C4: x is [N][C/4][pixels] of vec4, y is [N][C/4] of vec4. One workgroup reduces one map: each invocation takes
// every local_size_x-th pixel, then a tree in shared memory. Sums run in two levels, so that rounding errors stay
// small for large maps. local_size_x is a power of two, at most 64.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool maximum = false;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int blocks;
    int pixels;
};

const int CHUNK = 32; // terms added up before they join the total
shared vec4 partial[64];

void main() {
    int lane = int(gl_LocalInvocationID.x);
    int lanes = int(gl_WorkGroupSize.x);
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int from = x_offset + n * x_batch + block * pixels;
        vec4 total = maximum ? vec4(uintBitsToFloat(0xff800000u)) : vec4(0.0);
        for (int start = lane; start < pixels; start += CHUNK * lanes) {
            int end = min(start + CHUNK * lanes, pixels);
            vec4 chunk = vec4(0.0);
            for (int p = start; p < end; p += lanes) {
                vec4 v = LOAD(x, from + p);
                if (maximum) total = max(total, v);
                else chunk += v;
            }
            if (!maximum) total += chunk;
        }
        partial[lane] = total;
        for (int half_count = lanes / 2; half_count > 0; half_count /= 2) {
            barrier();
            if (lane < half_count) {
                vec4 other = partial[lane + half_count];
                partial[lane] = maximum ? max(partial[lane], other) : partial[lane] + other;
            }
        }
        if (lane == 0) y[y_offset + n * y_batch + block] = maximum ? partial[0] : partial[0] / float(pixels);
        barrier();
    }
}
