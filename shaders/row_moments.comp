#version 450
#extension GL_GOOGLE_include_directive : require
// mean[r] = mean of x[r][i] over i, inverse[r] = 1 / sqrt(variance + epsilon); x is dense rows of `axis` elements.
// Two passes, of the distances to the row's first element. One workgroup computes one row, its lanes share it.
#include "tensor.glsl"
#include "grid.glsl"
#include "workgroup_reduction.glsl"

READ_BUFFER(0, x, float);
WRITE_BUFFER(1, mean, float);
WRITE_BUFFER(2, inverse, float);
layout(push_constant) uniform Push {
    int x_offset;
    int mean_offset;
    int inverse_offset;
    int rows;
    int axis;
    float epsilon;
};

float add(float a, float b) { return a + b; }

float row_sum(int from, bool squares, float shift, float center) {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    float total = 0.0;
    for (int start = lane; start < axis; start += 64 * lanes) {
        float part = 0.0;
        int end = min(start + 64 * lanes, axis);
        for (int i = start; i < end; i += lanes) {
            float v = x[from + i] - shift - center;
            part += squares ? v * v : v;
        }
        total += part;
    }
    REDUCE_LANES(total, add)
    return total;
}

void main() {
    for (int r = int(gl_WorkGroupID.x); r < rows; r += int(gl_NumWorkGroups.x)) {
        int from = x_offset + r * axis;
        float shift = x[from];
        float center = row_sum(from, false, shift, 0.0) / float(axis);
        float variance = row_sum(from, true, shift, center) / float(axis);
        if (gl_LocalInvocationID.x == 0) {
            mean[mean_offset + r] = shift + center;
            inverse[inverse_offset + r] = 1.0 / sqrt(variance + epsilon);
        }
    }
}
