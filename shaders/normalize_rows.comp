#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(lanes = shared_row, own_row; width = vec4, scalar; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(lanes = own_row, width = vec4)
#pragma vkconv exclude(width = scalar, access = storage_texel)
#pragma vkconv exclude(width = scalar, access = uniform_texel)
// y = (x - center) / size * scale + bias along rows; linear. `kind` (vkconv/ops/row_normalization.py) says what center
// and size are: mean and sqrt(variance + epsilon); 0 and sqrt(mean of x^2 + epsilon); 0 and the sum of |x|; 0 and
// sqrt(sum of x^2). Mean and variance are taken in two passes, of the distances to the row's first element: what a large
// mean leaves of float32 is then lost nowhere.
// Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step, scale and bias at i. All counts are of
// vec4s with width = vec4 (where step is 1).
// lanes = shared_row: one workgroup computes one row, its lanes share it.  lanes = own_row: one invocation computes one
// row, neighbouring lanes the rows of neighbouring c.
#include "tensor.glsl"
#include "grid.glsl"
#include "workgroup_reduction.glsl"

#define NORM_MEAN_VARIANCE 0
#define NORM_ROOT_MEAN_SQUARE 1
#define NORM_L1 2
#define NORM_L2 3

layout(constant_id = 1) const int kind = NORM_MEAN_VARIANCE;
layout(constant_id = 2) const int has_scale = 0;
layout(constant_id = 3) const int has_bias = 0;

#if defined(WIDTH_VEC4)
#define T vec4
#define TOTAL(v) dot(v, vec4(1.0))
#define FIRST_LANE(v) (v).x
READ_VEC4(0, x);
READ_BUFFER(1, scale, vec4);
READ_BUFFER(2, bias, vec4);
WRITE_BUFFER(3, y, vec4);
#else
#define T float
#define TOTAL(v) (v)
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

float add(float a, float b) { return a + b; }

// first element to be taken by this invocation, and the distance to its next one
#if defined(LANES_SHARED_ROW)
#define FIRST int(gl_LocalInvocationID.x)
#define STRIDE int(gl_WorkGroupSize.x)
#else
#define FIRST 0
#define STRIDE 1
#endif

T term(T v) { return kind == NORM_L1 ? abs(v) : v * v; }

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
#if defined(LANES_SHARED_ROW)
    REDUCE_LANES(total, add)
#endif
    return total;
}

void row(int from, int to) {
    float shift = kind == NORM_MEAN_VARIANCE ? FIRST_LANE(LOAD(x, from)) : 0.0;
    float center = kind == NORM_MEAN_VARIANCE ? row_sum(from, false, shift, 0.0) / count : 0.0;
    float total = row_sum(from, true, shift, center);
    float size = kind == NORM_L1 ? total : kind == NORM_L2 ? sqrt(total) : sqrt(total / count + epsilon);
    for (int i = FIRST; i < axis; i += STRIDE) {
        T v = (LOAD(x, from + i * step) - shift - center) / size;
        // a row of zeros has no direction: it stays zero
        if (kind >= NORM_L1 && size == 0.0) v = T(0.0);
        if (has_scale != 0) v *= scale[scale_offset + i];
        if (has_bias != 0) v += bias[bias_offset + i];
        y[to + i * step] = v;
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
