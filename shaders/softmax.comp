#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(lanes = shared_row, own_row)
// y = exp(x - max) / sum(exp(x - max)) along an axis, or its logarithm x - max - log(sum(...)); linear.
// Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step.
// lanes = shared_row: one workgroup computes one row, its lanes share it.  lanes = own_row: one invocation computes one
// row, neighbouring lanes the rows of neighbouring c.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"
#include "workgroup_reduction.glsl"

layout(constant_id = 1) const int logarithmic = 0;

READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, float);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int outer;
    int outer_stride;
    int rows; // per o
    int row_stride;
    int axis;
    int step;
};

float add(float a, float b) { return a + b; }

// first element to be taken by this invocation, and the distance to its next one
#if defined(LANES_SHARED_ROW)
#define FIRST int(gl_LocalInvocationID.x)
#define STRIDE int(gl_WorkGroupSize.x)
#else
#define FIRST 0
#define STRIDE 1
#endif

void row(int from, int to) {
    float largest = x[from];
    for (int i = FIRST; i < axis; i += STRIDE) largest = max(largest, x[from + i * step]);
#if defined(LANES_SHARED_ROW)
    REDUCE_LANES(largest, max)
#endif
    // two levels, so that rounding errors stay small on long axes
    float total = 0.0;
    for (int start = FIRST; start < axis; start += 64 * STRIDE) {
        float part = 0.0;
        int end = min(start + 64 * STRIDE, axis);
        for (int i = start; i < end; i += STRIDE) part += exp(x[from + i * step] - largest);
        total += part;
    }
#if defined(LANES_SHARED_ROW)
    REDUCE_LANES(total, add)
#endif
    float log_total = logarithmic != 0 ? logarithm(vec4(total)).x : 0.0;
    for (int i = FIRST; i < axis; i += STRIDE) {
        float shifted = x[from + i * step] - largest;
        y[to + i * step] = logarithmic != 0 ? shifted - log_total : exp(shifted) / total;
    }
}

void main() {
    FOR_Y(o, outer) {
#if defined(LANES_SHARED_ROW)
        for (int c = int(gl_WorkGroupID.x); c < rows; c += int(gl_NumWorkGroups.x))
#else
        FOR_X(c, rows)
#endif
        {
            int start = o * outer_stride + c * row_stride;
            row(x_offset + start, y_offset + start);
        }
    }
}
