#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(width = vec4, scalar; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = scalar, access = storage_texel)
#pragma vkconv exclude(width = scalar, access = uniform_texel)
// moments[n][c][chunk] = (mean, sum of (x - mean)^2) of the pixels of one chunk of a channel, in two passes, of
// the distances to the chunk's first pixel.
// width = vec4: C4, c counts channel blocks, each lane of the vec4s is a channel.  width = scalar: linear.
// One workgroup computes one chunk of `chunk_length` pixels, its lanes share it.
#include "tensor.glsl"
#include "grid.glsl"

#if defined(WIDTH_VEC4)
#undef ELEMENT
#define ELEMENT vec4
READ_VEC4(0, x);
WRITE_BUFFER(1, moments, vec4);
#else
READ_BUFFER(0, x, float);
WRITE_BUFFER(1, moments, float);
#endif
#include "workgroup_reduction.glsl"

layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int moments_offset;
    int batches;
    int channels;
    int pixels;
    int dense_batch; // of linear tensors, which have no batch stride of their own
    int chunks;
    int chunk_length;
};

ELEMENT add(ELEMENT a, ELEMENT b) { return a + b; }

// the sum of x - shift, or of (x - shift - center)^2, in two levels
ELEMENT chunk_sum(int from, int count, bool squares, ELEMENT shift, ELEMENT center) {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    ELEMENT total = ELEMENT(0.0);
    for (int start = lane; start < count; start += 64 * lanes) {
        ELEMENT part = ELEMENT(0.0);
        int end = min(start + 64 * lanes, count);
        for (int i = start; i < end; i += lanes) {
            ELEMENT v = LOAD(x, from + i) - shift - center;
            part += squares ? v * v : v;
        }
        total += part;
    }
    REDUCE_LANES(total, add)
    return total;
}

void main() {
    FOR_Z(n, batches) FOR_Y(c, channels) {
        for (int chunk = int(gl_WorkGroupID.x); chunk < chunks; chunk += int(gl_NumWorkGroups.x)) {
            int first = chunk * chunk_length;
            int count = min(chunk_length, pixels - first);
            int from = x_offset + n * (x_batch + dense_batch) + c * pixels + first;
            ELEMENT shift = LOAD(x, from);
            ELEMENT center = chunk_sum(from, count, false, shift, ELEMENT(0.0)) / float(count);
            ELEMENT squares = chunk_sum(from, count, true, shift, center);
            if (gl_LocalInvocationID.x == 0) {
                int to = moments_offset + ((n * channels + c) * chunks + chunk) * 2;
                moments[to] = shift + center;
                moments[to + 1] = squares;
            }
        }
    }
}
