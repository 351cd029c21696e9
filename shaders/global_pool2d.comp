#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][c] = post(combine over all pixels of pre(x[n][c])): mean, sum, sum of squares, norm, largest or smallest.
// C4: x is [N][C/4][pixels] of vec4, y is [N][C/4] of vec4. One workgroup reduces one map: each invocation takes
// every local_size_x-th pixel, then a tree in shared memory. Sums run in two levels, so that rounding errors stay
// small for large maps. local_size_x is a power of two, at most 64. Padding lanes, which are zero, stay zero.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"
#include "reduction_codes.glsl"

layout(constant_id = 1) const int combination = COMBINE_SUM; // not COMBINE_PROD, which would make padding lanes one
layout(constant_id = 2) const int pre = PRE_NONE;            // not PRE_EXP, for the same reason
layout(constant_id = 3) const int post = POST_NONE;          // not POST_LOG

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

vec4 prepare(vec4 v) { return pre == PRE_ABS ? abs(v) : pre == PRE_SQUARE ? v * v : v; }

vec4 combine(vec4 a, vec4 b) {
    // a NaN stays, which max and min do not promise
    if (combination == COMBINE_MAX) return mix(mix(b, a, greaterThan(a, b)), a, isnan(a));
    if (combination == COMBINE_MIN) return mix(mix(b, a, lessThan(a, b)), a, isnan(a));
    return a + b;
}

vec4 finish(vec4 v) { return post == POST_MEAN ? v / float(pixels) : post == POST_SQRT ? sqrt(v) : v; }

void main() {
    int lane = int(gl_LocalInvocationID.x);
    int lanes = int(gl_WorkGroupSize.x);
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int from = x_offset + n * x_batch + block * pixels;
        // no invocation is without a pixel: of a maximum, taking the first one twice changes nothing
        vec4 start_value = combination == COMBINE_SUM ? vec4(0.0) : prepare(LOAD(x, from));
        vec4 total = start_value;
        for (int start = lane; start < pixels; start += CHUNK * lanes) {
            int end = min(start + CHUNK * lanes, pixels);
            vec4 chunk = start_value;
            for (int p = start; p < end; p += lanes) chunk = combine(chunk, prepare(LOAD(x, from + p)));
            total = combine(total, chunk);
        }
        partial[lane] = total;
        for (int half_count = lanes / 2; half_count > 0; half_count /= 2) {
            barrier();
            if (lane < half_count) partial[lane] = combine(partial[lane], partial[lane + half_count]);
        }
        if (lane == 0) y[y_offset + n * y_batch + block] = finish(partial[0]);
        barrier();
    }
}
