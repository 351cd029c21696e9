#version 450
#extension GL_GOOGLE_include_directive : require
// From the moments of channels' chunks to what normalisation needs per channel: table[n][c] = (mean, factor, bias),
// factor = scale / sqrt(variance + epsilon), of the group that the channel is in. Moments are merged as
//     mean = sum of count mean_i / count,  squares = sum of squares_i + count_i (mean_i - mean)^2
// (Chan, Golub & LeVeque, 1979). Both buffers are in blocks of `block` channels (4 for C4, 1 for linear).
// One workgroup computes one group of one batch (`merged`: of all batches), its lanes share channels and chunks.
#include "tensor.glsl"
#include "grid.glsl"
#include "workgroup_reduction.glsl"
#include "affine_codes.glsl"

layout(constant_id = 1) const int affine = AFFINE_NONE;
layout(constant_id = 2) const int merged = 0;
layout(constant_id = 3) const int epsilon_outside = 0; // 1: scale / (sqrt(variance) + epsilon)

READ_BUFFER(0, moments, float);
READ_BUFFER(1, scale, float);
READ_BUFFER(2, bias, float);
WRITE_BUFFER(3, table, float);
layout(push_constant) uniform Push {
    int moments_offset;
    int scale_offset;
    int bias_offset;
    int table_offset;
    int batches;
    int channels;
    int groups;
    int block;
    int pixels;
    int chunks;
    int chunk_length;
    float epsilon;
};

float add(float a, float b) { return a + b; }

// place of entry `entry` of a channel, where each block of channels has `entries`
int place(int n, int c, int entries, int entry) {
    int blocks = (channels + block - 1) / block;
    return ((n * blocks + c / block) * entries + entry) * block + c % block;
}

// sum over the group of count_i (mean_i - mean), or of the squares about `mean`
float group_sum(int n0, int n1, int first, int size, bool squares, float mean) {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    int items = size * chunks;
    float total = 0.0;
    for (int n = n0; n < n1; n++) for (int item = lane; item < items; item += lanes) {
        int c = first + item / chunks, chunk = item % chunks;
        float count = float(min(chunk_length, pixels - chunk * chunk_length));
        float own = moments[moments_offset + place(n, c, chunks * 2, chunk * 2)];
        if (squares) {
            float distance = own - mean;
            total += moments[moments_offset + place(n, c, chunks * 2, chunk * 2 + 1)] + count * distance * distance;
        } else {
            total += count * (own - mean);
        }
    }
    REDUCE_LANES(total, add)
    return total;
}

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    int size = channels / groups;
    FOR_Y(b, merged != 0 ? 1 : batches) {
        int n0 = merged != 0 ? 0 : b, n1 = merged != 0 ? batches : b + 1;
        for (int g = int(gl_WorkGroupID.x); g < groups; g += int(gl_NumWorkGroups.x)) {
            float count = float(size) * float(pixels) * float(n1 - n0);
            float first = moments[moments_offset + place(n0, g * size, chunks * 2, 0)];
            float mean = first + group_sum(n0, n1, g * size, size, false, first) / count;
            float variance = group_sum(n0, n1, g * size, size, true, mean) / count;
            float factor = epsilon_outside != 0 ? 1.0 / (sqrt(variance) + epsilon) : 1.0 / sqrt(variance + epsilon);
            for (int c = g * size + lane; c < (g + 1) * size; c += lanes) {
                int from = affine == AFFINE_PER_GROUP ? g : c;
                float own_factor = affine == AFFINE_NONE ? factor : factor * scale[scale_offset + from];
                float own_bias = affine == AFFINE_NONE ? 0.0 : bias[bias_offset + from];
                for (int n = n0; n < n1; n++) {
                    table[table_offset + place(n, c, 3, 0)] = mean;
                    table[table_offset + place(n, c, 3, 1)] = own_factor;
                    table[table_offset + place(n, c, 3, 2)] = own_bias;
                }
            }
        }
    }
}
