#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(dtype = float, int; lanes = shared_row, shuffled_row, own_row)
// y[k] = post(combine over r of pre(x[k, r])); linear. x has up to 3 kept and 3 reduced dimensions, each with its size
// and stride; the codes are those of vkconv/ops/reduction_kernels.py.
// A row is what becomes one y (include/rows.glsl). Lanes that share one share its innermost reduced dimension, which can
// be cut into `chunks` of `chunk_length`: these then are an innermost dimension of y, for a second pass. Lanes that have
// rows of their own have neighbours in the last kept dimension.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"
#include "rows.glsl"
#include "reduction_codes.glsl"

layout(constant_id = 1) const int combination = COMBINE_SUM;
layout(constant_id = 2) const int pre = PRE_NONE;
layout(constant_id = 3) const int post = POST_NONE;

READ_BUFFER(0, x, ELEMENT);
WRITE_BUFFER(1, y, ELEMENT);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int kept_size[3];
    int kept_stride[3];
    int kept_step[3]; // in y
    int reduced_size[3];
    int reduced_stride[3];
    int chunks;
    int chunk_length;
    float count;
};

#if defined(DTYPE_INT)
#define LEAST int(0x80000000)
#define MOST 0x7fffffff
#else
#define LEAST intBitsToFloat(int(0xff800000))
#define MOST intBitsToFloat(0x7f800000)
#endif

ELEMENT identity(int how) {
    return how == COMBINE_MAX ? LEAST : how == COMBINE_MIN ? MOST : how == COMBINE_PROD ? ELEMENT(1) : ELEMENT(0);
}

bool is_nan(ELEMENT v) {
#if defined(DTYPE_INT)
    return false;
#else
    return isnan(v);
#endif
}

ELEMENT combine(int how, ELEMENT a, ELEMENT b) {
    if (how == COMBINE_SUM) return a + b;
    if (how == COMBINE_PROD) return a * b;
    // a NaN stays, which max and min do not promise
    if (how == COMBINE_MAX) return a > b || is_nan(a) ? a : b;
    return a < b || is_nan(a) ? a : b;
}
ELEMENT combine_result(ELEMENT a, ELEMENT b) { return combine(combination, a, b); }
ELEMENT combine_largest(ELEMENT a, ELEMENT b) { return combine(COMBINE_MAX, a, b); }

ELEMENT prepare(ELEMENT v, ELEMENT shift) {
    if (pre == PRE_ABS) return abs(v);
    if (pre == PRE_SQUARE) return v * v;
#if !defined(DTYPE_INT)
    if (pre == PRE_EXP) return isnan(v) ? v : exp(v - shift); // SwiftShader: exp(NaN) = inf
#endif
    return v;
}

ELEMENT finish(ELEMENT v, ELEMENT shift) {
#if !defined(DTYPE_INT)
    if (post == POST_MEAN) return v / count;
    if (post == POST_SQRT) return sqrt(v);
    if (post == POST_LOG) return logarithm(vec4(v)).x + shift;
#endif
    return v;
}

// everything from `first` to `end` of the innermost reduced dimension, in steps of `step`, for all of the outer ones;
// in two levels, so that the rounding errors of long sums stay small. Four at a time: an iteration costs a CPU driver
// as much as several loads.
ELEMENT gather(int how, bool prepared, ELEMENT shift, int from, int first, int end, int step) {
    ELEMENT total = identity(how);
    for (int r0 = 0; r0 < reduced_size[0]; r0++) for (int r1 = 0; r1 < reduced_size[1]; r1++) {
        int at = from + r0 * reduced_stride[0] + r1 * reduced_stride[1] + first * reduced_stride[2];
        int jump = step * reduced_stride[2];
        int left = max(end - first + step - 1, 0) / step;
        while (left >= 4) {
            ELEMENT part = identity(how);
            int groups = min(left / 4, 16);
            left -= groups * 4;
            for (; groups > 0; groups--) {
                UNROLL for (int i = 0; i < 4; i++) {
                    ELEMENT v = x[at + i * jump];
                    part = combine(how, part, prepared ? prepare(v, shift) : v);
                }
                at += 4 * jump;
            }
            total = combine(how, total, part);
        }
        for (; left > 0; left--) {
            ELEMENT v = x[at];
            total = combine(how, total, prepared ? prepare(v, shift) : v);
            at += jump;
        }
    }
    return total;
}

#if !defined(LANES_OWN_ROW)
void main() {
    FOR_Z(k01, kept_size[0] * kept_size[1]) FOR_Y(k2, kept_size[2]) {
        int k0 = k01 / kept_size[1], k1 = k01 - k0 * kept_size[1];
        int from = x_offset + k0 * kept_stride[0] + k1 * kept_stride[1] + k2 * kept_stride[2];
        int to = y_offset + (k0 * kept_step[0] + k1 * kept_step[1] + k2 * kept_step[2]) * chunks;
        for (int chunk = int(gl_WorkGroupID.x); chunk < chunks; chunk += int(gl_NumWorkGroups.x)) {
            int first = chunk * chunk_length, end = min(first + chunk_length, reduced_size[2]);
            ELEMENT shift = ELEMENT(0);
            if (pre == PRE_EXP) {
                ELEMENT largest = gather(COMBINE_MAX, false, shift, from, first + FIRST, end, STRIDE);
                COMBINE(largest, combine_largest)
                shift = abs(largest) < MOST ? largest : ELEMENT(0);
            }
            ELEMENT total = gather(combination, true, shift, from, first + FIRST, end, STRIDE);
            COMBINE(total, combine_result)
            if (FIRST == 0) y[to + chunk] = finish(total, shift);
        }
    }
}
#else
void main() {
    FOR_Z(k0, kept_size[0]) FOR_Y(k1, kept_size[1]) FOR_X(k2, kept_size[2]) {
        int from = x_offset + k0 * kept_stride[0] + k1 * kept_stride[1] + k2 * kept_stride[2];
        ELEMENT shift = ELEMENT(0);
        if (pre == PRE_EXP) {
            ELEMENT largest = gather(COMBINE_MAX, false, shift, from, 0, reduced_size[2], 1);
            shift = abs(largest) < MOST ? largest : ELEMENT(0);
        }
        ELEMENT total = gather(combination, true, shift, from, 0, reduced_size[2], 1);
        y[y_offset + k0 * kept_step[0] + k1 * kept_step[1] + k2 * kept_step[2]] = finish(total, shift);
    }
}
#endif
