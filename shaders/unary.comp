#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; width = vec4, scalar)
#pragma vkconv exclude(access = storage_texel, width = scalar)
#pragma vkconv exclude(access = uniform_texel, width = scalar)
// y = f(x) element by element, f = activate(kind, x, alpha, beta) of activations.glsl.
// width = vec4: `batches` runs of `count` vec4s, in C4 ([ceil(C/4)][H][W] is one run) or linear (one run). From vec4
// `whole` on, a run is the last channel block of C4, of which only `tail` lanes hold channels.
// width = scalar: linear, any offset and count. One invocation computes one vec4 or scalar.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int kind = ACT_NONE;

#if defined(WIDTH_SCALAR)
READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, float);
#else
READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int count;
    int whole;
    int tail;
    float alpha;
    float beta;
};

// NaN in, NaN out, which the built-in functions do not promise; "x > alpha, else 0" (ThresholdedRelu, Shrink) says 0
vec4 apply(vec4 v) {
    vec4 result = activate(kind, v, alpha, beta);
    return kind == ACT_THRESHOLDED_RELU || kind == ACT_SHRINK ? result : mix(result, v, isnan(v));
}

void main() {
    FOR_Z(n, batches) {
        int from = x_offset + n * x_batch;
        int to = y_offset + n * y_batch;
        FOR_X(i, count) {
#if defined(WIDTH_SCALAR)
            y[to + i] = apply(vec4(x[from + i])).x;
#else
            vec4 v = apply(LOAD(x, from + i));
            y[to + i] = i < whole ? v : keep_channels(v, 0, tail);
#endif
        }
    }
}
