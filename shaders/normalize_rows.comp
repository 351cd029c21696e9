#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(lanes = shared_row, shuffled_row, own_row; width = vec4, scalar; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(lanes = own_row, width = vec4)
#pragma vkconv exclude(width = scalar, access = storage_texel)
#pragma vkconv exclude(width = scalar, access = uniform_texel)
// y = (x - center) / size * scale + bias along rows; linear. `kind` (vkconv/ops/row_normalization.py) says what center
// and size are: mean and sqrt(variance + epsilon); 0 and sqrt(mean of x^2 + epsilon); 0 and the sum of |x|; 0 and
// sqrt(sum of x^2). Mean and variance are taken in two passes, of the distances to the row's first element: what a large
// mean leaves of float32 is then lost nowhere.
// Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step, scale and bias at i. All counts are of
// vec4s with width = vec4 (where step is 1).
// kept: the elements of a row that each lane holds in registers from the first pass to the last; 0 where rows are too
// long for that, and are read in each pass. lanes: see include/rows.glsl.
#include "tensor.glsl"
#include "grid.glsl"
#include "rows.glsl"

#define NORM_MEAN_VARIANCE 0
#define NORM_ROOT_MEAN_SQUARE 1
#define NORM_L1 2
#define NORM_L2 3

layout(constant_id = 1) const int kind = NORM_MEAN_VARIANCE;
layout(constant_id = 2) const int has_scale = 0;
layout(constant_id = 3) const int has_bias = 0;
layout(constant_id = 4) const int kept = 0;

#if defined(WIDTH_VEC4)
#define FIRST_LANE(v) (v).x
READ_VEC4(0, x);
READ_VEC4(1, scale);
READ_VEC4(2, bias);
WRITE_BUFFER(3, y, vec4);
#else
#define FIRST_LANE(v) (v)
READ_BUFFER(0, x, float);
READ_BUFFER(1, scale, float);
READ_BUFFER(2, bias, float);
WRITE_BUFFER(3, y, float);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int scale_offset;
    int bias_offset;
    int y_offset;
    int outer;
    int outer_stride;
    int rows; // per o
    int row_stride;
    int axis;
    int step;
    float count; // scalars in a row
    float epsilon;
};

const int KEPT = kept > 0 ? kept : 1;

T term(T v) { return kind == NORM_L1 ? abs(v) : v * v; }

float size_of(float total) {
    return kind == NORM_L1 ? total : kind == NORM_L2 ? sqrt(total) : sqrt(total / count + epsilon);
}

T scaled(T v, float size, int i) {
    v /= size;
    // a row of zeros has no direction: it stays zero
    if (kind >= NORM_L1 && size == 0.0) v = T(0.0);
    if (has_scale != 0) v *= LOAD(scale, scale_offset + i);
    if (has_bias != 0) v += LOAD(bias, bias_offset + i);
    return v;
}

void kept_row(int from, int to) {
    T v[KEPT];
    // elements beyond the end repeat the last one; they are not counted
    UNROLL for (int i = 0; i < KEPT; i++) v[i] = LOAD(x, from + min(FIRST + i * STRIDE, axis - 1) * step);
    if (kind == NORM_MEAN_VARIANCE) {
        float shift = FIRST_LANE(LOAD(x, from));
        T part = T(0.0);
        UNROLL for (int i = 0; i < KEPT; i++) {
            v[i] -= shift;
            part += FIRST + i * STRIDE < axis ? v[i] : T(0.0);
        }
        float center = TOTAL(part);
        COMBINE(center, add)
        center /= count;
        UNROLL for (int i = 0; i < KEPT; i++) v[i] -= center;
    }
    T part = T(0.0);
    UNROLL for (int i = 0; i < KEPT; i++) part += FIRST + i * STRIDE < axis ? term(v[i]) : T(0.0);
    float total = TOTAL(part);
    COMBINE(total, add)
    float size = size_of(total);
    UNROLL for (int i = 0; i < KEPT; i++) {
        int at = FIRST + i * STRIDE;
        if (at < axis) y[to + at * step] = scaled(v[i], size, at);
    }
}

// the sum over the row of x - shift - center, or of its `term`; in two levels, so that rounding errors stay small on
// long rows
float row_sum(int from, bool terms, float shift, float center) {
    float total = 0.0;
    for (int start = FIRST; start < axis; start += 64 * STRIDE) {
        T part = T(0.0);
        int end = min(start + 64 * STRIDE, axis);
        for (int i = start; i < end; i += STRIDE) {
            T v = LOAD(x, from + i * step) - shift - center;
            part += terms ? term(v) : v;
        }
        total += TOTAL(part);
    }
    COMBINE(total, add)
    return total;
}

void long_row(int from, int to) {
    float shift = kind == NORM_MEAN_VARIANCE ? FIRST_LANE(LOAD(x, from)) : 0.0;
    float center = kind == NORM_MEAN_VARIANCE ? row_sum(from, false, shift, 0.0) / count : 0.0;
    float size = size_of(row_sum(from, true, shift, center));
    for (int i = FIRST; i < axis; i += STRIDE)
        y[to + i * step] = scaled(LOAD(x, from + i * step) - shift - center, size, i);
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
