#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// y = activate((x - mean) * scale / sqrt(variance + epsilon) + bias), mean and variance over a group of channels and
// all pixels; C4. For groups that are whole channel blocks, or lie within one: nothing passes between workgroups then,
// and one dispatch does it all. Others take channel_moments, group_moments and normalize_channels.
// One workgroup normalises one unit: the `unit_blocks` blocks of a group, or one block with several groups of `width`
// channels in it. It reads its unit three times: for the mean, for the variance, and to normalise it. The sums are of
// distances to the unit's first pixel, in two levels, so that neither a large mean nor many pixels cost digits.
#include "tensor.glsl"
#include "activations.glsl"
#include "grid.glsl"
#include "affine_codes.glsl"

#undef ELEMENT
#define ELEMENT vec4
#define REDUCTION_LANES 256
#include "workgroup_reduction.glsl"

layout(constant_id = 1) const int affine = AFFINE_NONE;
layout(constant_id = 2) const int width = 4; // channels of a block that belong to one group: 1, 2 or 4
layout(constant_id = 3) const int epsilon_outside = 0; // 1: scale / (sqrt(variance) + epsilon)
layout(constant_id = 10) const int ACTIVATION = ACT_NONE;
layout(constant_id = 12) const bool MASKED = false; // the last channel block is not full

READ_VEC4(0, x);
READ_BUFFER(1, scale, float);
READ_BUFFER(2, bias, float);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int scale_offset;
    int bias_offset;
    int y_offset;
    int y_batch;
    int batches;
    int channels;
    int groups;
    int units;
    int unit_blocks;
    int pixels;
    float epsilon;
    float alpha;
    float beta;
};

const int CHUNK = 16; // turns of four pixels whose sum joins the total

vec4 add(vec4 a, vec4 b) { return a + b; }

// each lane of a block with the total of its group
vec4 over_group(vec4 v) {
    if (width == 1) return v;
    if (width == 2) return v + v.yxwz;
    return vec4(v.x + v.y + v.z + v.w);
}

// sum over the unit of x - shift, or of (x - shift - center)^2. Four pixels a turn: the turn itself costs a CPU driver
// as much as a load.
vec4 unit_sum(int from, int count, bool squares, vec4 center) {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    vec4 total = vec4(0.0);
    int i = lane;
    while (i + 3 * lanes < count) {
        vec4 part = vec4(0.0);
        for (int turn = 0; turn < CHUNK && i + 3 * lanes < count; turn++, i += 4 * lanes)
            UNROLL for (int k = 0; k < 4; k++) {
                vec4 v = LOAD(x, from + i + k * lanes) - center;
                part += squares ? v * v : v;
            }
        total += part;
    }
    for (; i < count; i += lanes) {
        vec4 v = LOAD(x, from + i) - center;
        total += squares ? v * v : v;
    }
    REDUCE_LANES(total, add)
    return over_group(total);
}

// the elements of `values` (scale or bias) for the channels of a block
#define PER_CHANNEL(values, block)                                                                                     \
    vec4(values[values##_offset + place((block) * 4)], values[values##_offset + place((block) * 4 + 1)],               \
         values[values##_offset + place((block) * 4 + 2)], values[values##_offset + place((block) * 4 + 3)])

#define NORMALIZE(at)                                                                                                  \
    {                                                                                                                  \
        vec4 v = activate(ACTIVATION, (LOAD(x, from + at) - center) * own_factor + own_bias, alpha, beta);             \
        y[to + at] = MASKED ? keep_channels(v, block, channels) : v;                                                   \
    }

int place(int channel) {
    int c = min(channel, channels - 1);
    return affine == AFFINE_PER_GROUP ? divide(c, channels / groups).x : c;
}

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Z(n, batches) FOR_Y(unit, units) {
        int first_block = unit * unit_blocks;
        int from = x_offset + n * x_batch + first_block * pixels;
        int to = y_offset + n * y_batch + first_block * pixels;
        int count = unit_blocks * pixels;
        float elements = float(width * unit_blocks) * float(pixels);
        vec4 shift = LOAD(x, from);
        shift = width == 1 ? shift : width == 2 ? shift.xxzz : shift.xxxx;
        vec4 center = shift + unit_sum(from, count, false, shift) / elements;
        vec4 variance = unit_sum(from, count, true, center) / elements;
        vec4 factor = epsilon_outside != 0 ? 1.0 / (sqrt(variance) + epsilon) : 1.0 / sqrt(variance + epsilon);
        for (int b = 0; b < unit_blocks; b++) {
            int block = first_block + b;
            vec4 own_factor = factor, own_bias = vec4(0.0);
            if (affine != AFFINE_NONE) {
                own_factor *= PER_CHANNEL(scale, block);
                own_bias = PER_CHANNEL(bias, block);
            }
            int at = b * pixels;
            int p = lane;
            for (; p + 3 * lanes < pixels; p += 4 * lanes)
                UNROLL for (int k = 0; k < 4; k++) NORMALIZE(at + p + k * lanes)
            for (; p < pixels; p += lanes) NORMALIZE(at + p)
        }
    }
}
