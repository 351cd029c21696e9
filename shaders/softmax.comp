#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(lanes = shared_row, shuffled_row, own_row; width = vec4, scalar; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(lanes = own_row, width = vec4)
#pragma vkconv exclude(width = scalar, access = storage_texel)
#pragma vkconv exclude(width = scalar, access = uniform_texel)
// y = exp(x - max) / sum(exp(x - max)) along an axis, or its logarithm x - max - log(sum(...)); linear.
// Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step. All counts are of vec4s with
// width = vec4 (where step is 1).
// kept: the elements of a row that each lane holds in registers from the first pass to the last; 0 where rows are too
// long for that, and are read in each of three passes. lanes: see include/rows.glsl.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"
#include "rows.glsl"

layout(constant_id = 1) const int logarithmic = 0;
layout(constant_id = 2) const int kept = 0;

#if defined(WIDTH_VEC4)
READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
#else
READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, float);
#endif
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

const int KEPT = kept > 0 ? kept : 1;
const float LEAST = -3.4028235e38;

float logarithm_of(float total) { return logarithmic != 0 ? logarithm(vec4(total)).x : 0.0; }

void kept_row(int from, int to) {
    T v[KEPT];
    T top = T(LEAST);
    UNROLL for (int i = 0; i < KEPT; i++) {
        // elements beyond the end repeat the last one; they are not counted
        v[i] = LOAD(x, from + min(FIRST + i * STRIDE, axis - 1) * step);
        top = max(top, v[i]);
    }
    float largest = LARGEST(top);
    COMBINE(largest, max)
    T part = T(0.0);
    UNROLL for (int i = 0; i < KEPT; i++) {
        v[i] -= largest;
        T e = power(v[i]);
        part += FIRST + i * STRIDE < axis ? e : T(0.0);
        if (logarithmic == 0) v[i] = e;
    }
    float total = TOTAL(part);
    COMBINE(total, add)
    float log_total = logarithm_of(total);
    UNROLL for (int i = 0; i < KEPT; i++) {
        int at = FIRST + i * STRIDE;
        if (at < axis) y[to + at * step] = logarithmic != 0 ? v[i] - log_total : v[i] / total;
    }
}

void long_row(int from, int to) {
    T top = T(LEAST);
    for (int i = FIRST; i < axis; i += STRIDE) top = max(top, LOAD(x, from + i * step));
    float largest = LARGEST(top);
    COMBINE(largest, max)
    // two levels, so that rounding errors stay small on long axes
    float total = 0.0;
    for (int start = FIRST; start < axis; start += 64 * STRIDE) {
        T part = T(0.0);
        int end = min(start + 64 * STRIDE, axis);
        for (int i = start; i < end; i += STRIDE) part += power(LOAD(x, from + i * step) - largest);
        total += TOTAL(part);
    }
    COMBINE(total, add)
    float log_total = logarithm_of(total);
    for (int i = FIRST; i < axis; i += STRIDE) {
        T shifted = LOAD(x, from + i * step) - largest;
        y[to + i * step] = logarithmic != 0 ? shifted - log_total : power(shifted) / total;
    }
}

void main() {
    FOR_Y(o, outer) {
#if defined(LANES_OWN_ROW)
        FOR_X(c, rows)
#else
        for (int c = int(gl_WorkGroupID.x); c < rows; c += int(gl_NumWorkGroups.x))
#endif
        {
            int start = o * outer_stride + c * row_stride;
            if (kept > 0)
                kept_row(x_offset + start, y_offset + start);
            else
                long_row(x_offset + start, y_offset + start);
        }
    }
}
