#version 450
#extension GL_GOOGLE_include_directive : require
// y[b][h][i][:] = softmax over j of the attention scores of query i, after soft capping, mask and causal frontier;
// linear, dense. `stage` says how far to go (vkconv/ops/attention_kernels.py): capped scores, those with the bias
// added, or the softmax. A key j takes part where the mask allows it, j < length[b], and
// i + offset - left <= j <= i + offset + right. A query that no key takes part in gives zeros, or
// with `empty_is_nan`, as Softmax after an addition would, NaN.
// Element (b, h, i, j) of the mask lies at b * mask_step[0] + h * mask_step[1] + i * mask_step[2] + j * mask_step[3];
// keys beyond its `mask_keys` take no part. One workgroup computes one row, its lanes share the keys.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"
#include "workgroup_reduction.glsl"

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

READ_BUFFER(0, scores, float);
READ_BUFFER(1, mask, int); // bool, or the bits of a float
READ_BUFFER(2, lengths, int);
WRITE_BUFFER(3, y, float);
layout(push_constant) uniform Push {
    int scores_offset;
    int mask_offset;
    int lengths_offset;
    int y_offset;
    int batches;
    int heads;
    int queries;
    int keys;
    int mask_step[4];
    int mask_keys;
    int past;  // keys before those of this call
    int left;  // keys to each side of the query's own position; negative: any number
    int right;
    float softcap;
};

float add(float a, float b) { return a + b; }

const float LEAST = -3.4028235e38;

// the additive bias of key j, where `own` is the query's own position; minus infinity where j takes no part
float bias(int row, int j, int own, int length) {
    float infinity = intBitsToFloat(int(0xff800000));
    if (j >= length || (left >= 0 && j < own - left) || (right >= 0 && j > own + right)) return infinity;
    if (mask_kind == MASK_NONE) return 0.0;
    if (j >= mask_keys) return infinity;
    int value = mask[row + j * mask_step[3]];
    return mask_kind == MASK_FLOAT ? intBitsToFloat(value) : value != 0 ? 0.0 : infinity;
}

float capped(float score) {
    return has_softcap != 0 ? softcap * safe_tanh(vec4(score / softcap)).x : score;
}

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Z(b, batches) FOR_Y(h, heads) {
        int length = has_lengths != 0 ? lengths[lengths_offset + b] : keys;
        int offset = has_lengths != 0 ? length - queries : past;
        for (int i = int(gl_WorkGroupID.x); i < queries; i += int(gl_NumWorkGroups.x)) {
            int start = ((b * heads + h) * queries + i) * keys;
            int from = scores_offset + start, to = y_offset + start;
            int row = mask_offset + b * mask_step[0] + h * mask_step[1] + i * mask_step[2];
            if (stage != STAGE_SOFTMAX) {
                for (int j = lane; j < keys; j += lanes) {
                    float v = capped(scores[from + j]);
                    y[to + j] = stage == STAGE_BIASED ? v + bias(row, j, i + offset, length) : v;
                }
                continue;
            }
            float largest = LEAST, any = 0.0;
            for (int j = lane; j < keys; j += lanes) {
                float own = bias(row, j, i + offset, length);
                if (own < LEAST) continue;
                any = 1.0;
                largest = max(largest, capped(scores[from + j]) + own);
            }
            REDUCE_LANES(largest, max)
            REDUCE_LANES(any, max)
            float total = 0.0;
            for (int j = lane; j < keys; j += lanes) {
                float own = bias(row, j, i + offset, length);
                if (!(own < LEAST)) total += exp(capped(scores[from + j]) + own - largest);
            }
            REDUCE_LANES(total, add)
            for (int j = lane; j < keys; j += lanes) {
                float own = bias(row, j, i + offset, length);
                float v = own < LEAST || any == 0.0 ? 0.0 : exp(capped(scores[from + j]) + own - largest) / total;
                y[to + j] = empty_is_nan != 0 && any == 0.0 ? intBitsToFloat(0x7fc00000) : v;
            }
        }
    }
}
