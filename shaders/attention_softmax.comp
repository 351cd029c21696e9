#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(lanes = shared_row, shuffled_row; width = vec4, scalar; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = scalar, access = storage_texel)
#pragma vkconv exclude(width = scalar, access = uniform_texel)
// y[b][h][i][:] = softmax over j of the attention scores of query i, after soft capping, mask and causal frontier;
// linear. `stage` says how far to go (vkconv/ops/attention_kernels.py): capped scores, those with the bias added, or the
// softmax. A key j takes part where the mask allows it, j < length[b], and i + offset - left <= j <= i + offset + right.
// A query that no key takes part in gives zeros, or with `empty_is_nan`, as Softmax after an addition would, NaN.
// Element (b, h, i, j) of the mask lies at b * mask_step[0] + h * mask_step[1] + i * mask_step[2] + j * mask_step[3];
// keys beyond its `mask_keys` take no part.
// Rows are `elements` apart, vec4s with width = vec4, which may be more than there are keys (`ragged`); what is left of
// the last vec4 becomes zero. The lanes of a workgroup share a row (include/rows.glsl).
// kept: the elements of a row that each lane holds in registers from the first pass to the last; 0 where rows are too
// long for that, and are read in each of three passes.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"
#include "rows.glsl"

#define STAGE_CAPPED 1
#define STAGE_BIASED 2
#define STAGE_SOFTMAX 3
#define MASK_NONE 0
#define MASK_BOOL 1
#define MASK_FLOAT 2

layout(constant_id = 1) const int stage = STAGE_SOFTMAX;
layout(constant_id = 2) const int mask_kind = MASK_NONE;
layout(constant_id = 3) const int has_lengths = 0;
layout(constant_id = 4) const int has_softcap = 0;
layout(constant_id = 5) const int empty_is_nan = 0;
layout(constant_id = 6) const int windowed = 0;
layout(constant_id = 7) const int ragged = 0;
layout(constant_id = 8) const int kept = 0;

#if defined(WIDTH_VEC4)
READ_VEC4(0, scores);
#else
READ_BUFFER(0, scores, float);
#endif
READ_BUFFER(1, mask, int); // bool, or the bits of a float
READ_BUFFER(2, lengths, int);
WRITE_BUFFER(3, y, T);
layout(push_constant) uniform Push {
    int scores_offset;
    int mask_offset;
    int lengths_offset;
    int y_offset;
    int batches;
    int heads;
    int queries;
    int keys;
    int elements;
    int mask_step[4];
    int mask_keys;
    int past;  // keys before those of this call
    int left;  // keys to each side of the query's own position; negative: any number
    int right;
    float softcap;
};

const int KEPT = kept > 0 ? kept : 1;
const float LEAST = -3.4028235e38;
const bool RESTRICTED = mask_kind != MASK_NONE || has_lengths != 0 || windowed != 0;

// where a row of scores begins, and its mask; the query's own position, and the keys there are
struct Row {
    int from;
    int to;
    int mask;
    int own;
    int valid;
};

// the additive bias of key j; minus infinity where it takes no part
float bias(Row row, int j) {
    float infinity = intBitsToFloat(int(0xff800000));
    if (j >= row.valid) return infinity;
    if (windowed != 0 && ((left >= 0 && j < row.own - left) || (right >= 0 && j > row.own + right))) return infinity;
    if (mask_kind == MASK_NONE) return 0.0;
    if (j >= mask_keys) return infinity;
    int value = mask[row.mask + j * mask_step[3]];
    return mask_kind == MASK_FLOAT ? intBitsToFloat(value) : value != 0 ? 0.0 : infinity;
}

float capped(float score) {
    return has_softcap != 0 ? softcap * safe_tanh(vec4(score / softcap)).x : score;
}

float biased(float score, float own) { return own < LEAST ? own : capped(score) + own; }

// element i of the row with its biases; `any` becomes true where one of its keys takes part
T element(Row row, int i, inout bool any) {
    T v = LOAD(scores, row.from + i);
#if defined(WIDTH_VEC4)
    vec4 own = vec4(0.0);
    if (ragged != 0)
        own = mix(vec4(intBitsToFloat(int(0xff800000))), own, lessThan(ivec4(4 * i) + ivec4(0, 1, 2, 3), ivec4(keys)));
    if (RESTRICTED)
        own = vec4(bias(row, 4 * i), bias(row, 4 * i + 1), bias(row, 4 * i + 2), bias(row, 4 * i + 3));
    any = any || !(LARGEST(own) < LEAST);
    return vec4(biased(v.x, own.x), biased(v.y, own.y), biased(v.z, own.z), biased(v.w, own.w));
#else
    float own = RESTRICTED ? bias(row, i) : 0.0;
    any = any || !(own < LEAST);
    return biased(v, own);
#endif
}

// what is asked for instead of the softmax
T staged(Row row, int i) {
    bool any;
    if (stage == STAGE_BIASED) return element(row, i, any);
    T v = LOAD(scores, row.from + i);
#if defined(WIDTH_VEC4)
    return vec4(capped(v.x), capped(v.y), capped(v.z), capped(v.w));
#else
    return capped(v);
#endif
}

// whether a key takes part, by any lane of the row; without a restriction all do
bool any_lane(bool any) {
    if (!RESTRICTED) return true;
    float some = any ? 1.0 : 0.0;
    COMBINE(some, max)
    return some != 0.0;
}

// keys that take no part are minus infinity: their powers are zero, as the largest is finite
T weight(T e, float total, bool any) {
    return any ? e / total : T(empty_is_nan != 0 ? intBitsToFloat(0x7fc00000) : 0.0);
}

void kept_row(Row row) {
    T v[KEPT];
    T top = T(LEAST);
    bool any = false;
    UNROLL for (int i = 0; i < KEPT; i++) {
        // elements beyond the end repeat the last one; they are not counted
        v[i] = element(row, min(FIRST + i * STRIDE, elements - 1), any);
        top = max(top, v[i]);
    }
    float largest = LARGEST(top);
    COMBINE(largest, max)
    any = any_lane(any);
    T part = T(0.0);
    UNROLL for (int i = 0; i < KEPT; i++) {
        v[i] = power(v[i] - largest);
        part += FIRST + i * STRIDE < elements ? v[i] : T(0.0);
    }
    float total = TOTAL(part);
    COMBINE(total, add)
    UNROLL for (int i = 0; i < KEPT; i++) {
        int at = FIRST + i * STRIDE;
        if (at < elements) y[row.to + at] = weight(v[i], total, any);
    }
}

void long_row(Row row) {
    T top = T(LEAST);
    bool any = false;
    for (int i = FIRST; i < elements; i += STRIDE) top = max(top, element(row, i, any));
    float largest = LARGEST(top);
    COMBINE(largest, max)
    any = any_lane(any);
    float total = 0.0;
    for (int i = FIRST; i < elements; i += STRIDE) total += TOTAL(power(element(row, i, any) - largest));
    COMBINE(total, add)
    bool unused;
    for (int i = FIRST; i < elements; i += STRIDE)
        y[row.to + i] = weight(power(element(row, i, unused) - largest), total, any);
}

void main() {
    FOR_Z(b, batches) FOR_Y(h, heads) {
        int length = has_lengths != 0 ? lengths[lengths_offset + b] : keys;
        int offset = has_lengths != 0 ? length - queries : past;
        for (int i = int(gl_WorkGroupID.x); i < queries; i += int(gl_NumWorkGroups.x)) {
            int start = ((b * heads + h) * queries + i) * elements;
            Row row = Row(
                scores_offset + start,
                y_offset + start,
                mask_offset + b * mask_step[0] + h * mask_step[1] + i * mask_step[2],
                i + offset,
                length
            );
            if (stage != STAGE_SOFTMAX) {
                for (int j = FIRST; j < elements; j += STRIDE) y[row.to + j] = staged(row, j);
            } else if (kept > 0) {
                kept_row(row);
            } else {
                long_row(row);
            }
        }
    }
}
