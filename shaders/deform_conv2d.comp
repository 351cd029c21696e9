#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; shuffle = on, off; residual = off, on)
#include "convolution.glsl"
#include "bilinear.glsl"
// Deformable convolution; groups and offset groups of whole channel blocks.
//   y[n][o][p] = activation(bias[o] + sum_{i,k} weights[o][i][k] * factor[n][d(i)][k][p] * x[n][i] at position[n][d(i)][k][p])
// where x between pixels is bilinear, and zero beyond the map. x, residual, y: C4; positions: [n][offset group, tap][pixel] of
// vec4(row, column, factor, 0), see deform_positions.comp. One invocation: OUTPUT_TILE output channels at PIXELS pixels
// that lie a workgroup's width apart. A sample is taken from four texels and used for all OUTPUT_TILE outputs; the
// texels' indices and weights are computed once per tap and used for all channel blocks of the offset group.
// Grid: x pixels / (local_size * PIXELS), y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 16;
layout(constant_id = 2) const int PIXELS = 2;
const int LANES = 8;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, positions);
WRITE_BUFFER(3, y, vec4);
#if defined(RESIDUAL_ON)
READ_VEC4(4, residual);
#endif
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, positions_offset, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int part_blocks;                  // channel blocks of one offset group
    int height, width, pixels, taps, pairs;
    int channels;
    float alpha, beta;
#if defined(RESIDUAL_ON)
    int residual_offset, residual_batch;
#endif
};

void main() {
    int lanes = int(gl_WorkGroupSize.x);
    int first = int(gl_WorkGroupID.x) * lanes * PIXELS + int(gl_LocalInvocationID.x);
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = height * width;

    int x_base = x_offset + batch * x_batch + group * in_blocks * plane;
    int position_base = positions_offset + batch * pairs * pixels;
    int w_base = weights_offset + int(gl_WorkGroupID.y) * (OUTPUT_TILE / 4 + in_blocks * taps * OUTPUT_TILE);
    vec4 bias[OUTPUT_TILE / 4];
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++) bias[g] = LOAD(weights, w_base + g);
    w_base += OUTPUT_TILE / 4;
#if defined(SHUFFLE_ON)
    w_base += int(gl_SubgroupInvocationID % LANES);
#endif
    // pixels past the end read the last one and are not stored
    int target[PIXELS];
    UNROLL for (int p = 0; p < PIXELS; p++) target[p] = min(first + p * lanes, pixels - 1);

    float sum[OUTPUT_TILE * PIXELS];
    UNROLL for (int j = 0; j < OUTPUT_TILE * PIXELS; j++) sum[j] = 0.0;

    for (int begin = 0; begin < in_blocks;) {
        int part = (group * in_blocks + begin) / part_blocks;
        int end = min(in_blocks, (part + 1) * part_blocks - group * in_blocks);
        for (int tap = 0; tap < taps; tap++) {
            ivec4 at[PIXELS];
            vec4 weight[PIXELS];
            UNROLL for (int p = 0; p < PIXELS; p++) {
                vec4 place = LOAD(positions, position_base + (part * taps + tap) * pixels + target[p]);
                bilinear(place.xyz, height, width, at[p], weight[p]);
            }
            int x_index = x_base + begin * plane;
            int w_index = w_base + (begin * taps + tap) * OUTPUT_TILE;
            for (int k = begin; k < end; k++) {
                vec4 v[PIXELS];
                UNROLL for (int p = 0; p < PIXELS; p++) {
                    SAMPLE(v[p], x, x_index, at[p], weight[p])
                }
#if defined(SHUFFLE_ON)
                UNROLL for (int g = 0; g < OUTPUT_TILE / LANES; g++) {
                    vec4 w = LOAD(weights, w_index + g * LANES);
                    UNROLL for (int o = 0; o < LANES; o++)
                        UNROLL for (int c = 0; c < 4; c++) {
                            float s = subgroupShuffle(w[c], uint(o));
                            UNROLL for (int p = 0; p < PIXELS; p++)
                                ADD_PRODUCT(sum[(g * LANES + o) * PIXELS + p], s, v[p][c]);
                        }
                }
#else
                UNROLL for (int o = 0; o < OUTPUT_TILE; o++) {
                    vec4 w = LOAD(weights, w_index + o);
                    UNROLL for (int c = 0; c < 4; c++)
                        UNROLL for (int p = 0; p < PIXELS; p++) ADD_PRODUCT(sum[o * PIXELS + p], w[c], v[p][c]);
                }
#endif
                x_index += plane;
                w_index += taps * OUTPUT_TILE;
            }
        }
        begin = end;
    }

    int block = tile * (OUTPUT_TILE / 4);
    int plane_index = (group * out_blocks + block) * pixels;
    int y_index = y_offset + batch * y_batch + plane_index;
#if defined(RESIDUAL_ON)
    int residual_index = residual_offset + batch * residual_batch + plane_index;
#endif
    UNROLL for (int p = 0; p < PIXELS; p++)
        if (first + p * lanes < pixels) {
            UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++)
                if (block + g < out_blocks) {
                    vec4 value = bias[g] + vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                                sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    int at = g * pixels + target[p];
                    FINISH(value, y_index + at, residual_index + at, block + g)
                }
        }
}
