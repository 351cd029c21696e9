#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; shuffle = on, off)
#include "convolution.glsl"
#include "phases.glsl"
// Transposed convolution, any kernel, stride, padding and dilation; groups of whole channel blocks.
//   y[n][o][oy][ox] = activation(bias[o] + sum_{i,ky,kx} weights[i][o][ky][kx] * x[n][i][iy][ix])
//   over the taps for which iy = (oy + pt - ky*dy) / sy and ix = (ox + pl - kx*dx) / sx are whole and inside the map
// x, y, residual: C4. The lanes of a workgroup share one phase and so their taps and weights. One invocation:
// OUTPUT_TILE output channels at PIXELS outputs of one row of the phase; these lie `strips` apart, so that neighbouring
// invocations read neighbouring texels.
// Grid: x phases * (rows * strips of a phase / local_size), y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 16;
layout(constant_id = 2) const int PIXELS = 4;
const int LANES = 8;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, pad_top, pad_left;
    int channels;
    float alpha, beta;
};

void main() {
    int strips = ((out_width + STRIDE_X - 1) / STRIDE_X + PIXELS - 1) / PIXELS;
    // the phases of the same outputs follow each other: they read the same inputs and write the same cache lines
    int chunk = int(gl_WorkGroupID.x) / PHASES;
    int phase = int(gl_WorkGroupID.x) - chunk * PHASES;
    int phase_y = phase / STRIDE_X;
    int phase_x = phase - phase_y * STRIDE_X;
    int i = chunk * int(gl_WorkGroupSize.x) + int(gl_LocalInvocationID.x);
    int row = i / strips;
    int column = i - row * strips;
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = height * width;
    int taps = kernel_h * kernel_w;

    ivec2 first_y = FIRST_TAP_Y(phase_y, pad_top), first_x = FIRST_TAP_X(phase_x, pad_left);
    int x_base = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_base = weights_offset + int(gl_WorkGroupID.y) * (OUTPUT_TILE / 4 + in_blocks * taps * OUTPUT_TILE);
    int w_lane = w_base + OUTPUT_TILE / 4;
#if defined(SHUFFLE_ON)
    w_lane += int(gl_SubgroupInvocationID % LANES);
#endif
    float sum[OUTPUT_TILE * PIXELS];
    UNROLL for (int j = 0; j < OUTPUT_TILE * PIXELS; j++) sum[j] = 0.0;

    int iy = row + first_y.y;
    for (int ky = first_y.x; ky < kernel_h; ky += TAP_STEP_Y) {
        bool row_inside = uint(iy) < uint(height);
        int x_row = x_base + clamp(iy, 0, height - 1) * width;
        int ix = column + first_x.y;
        for (int kx = first_x.x; kx < kernel_w; kx += TAP_STEP_X) {
            // inputs outside the map read a texel inside it and count as zero
            bool inside[PIXELS];
            int at[PIXELS];
            UNROLL for (int p = 0; p < PIXELS; p++) {
                inside[p] = row_inside && uint(ix + p * strips) < uint(width);
                at[p] = x_row + clamp(ix + p * strips, 0, width - 1);
            }
            int w_index = w_lane + (ky * kernel_w + kx) * OUTPUT_TILE;
            int x_plane = 0;
            for (int k = 0; k < in_blocks; k++) {
                vec4 v[PIXELS];
                UNROLL for (int p = 0; p < PIXELS; p++) {
                    vec4 texel = LOAD(x, x_plane + at[p]);
                    v[p] = inside[p] ? texel : vec4(0.0);
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
                x_plane += plane;
                w_index += taps * OUTPUT_TILE;
            }
            ix -= INPUT_STEP_X;
        }
        iy -= INPUT_STEP_Y;
    }

    int oy = row * STRIDE_Y + phase_y;
    if (oy >= out_height) return;
    int block = tile * (OUTPUT_TILE / 4);
    int out_plane = out_height * out_width;
    int place = (group * out_blocks + block) * out_plane + oy * out_width + phase_x;
    int y_index = y_offset + batch * y_batch + place;
    int residual_index = residual_offset + batch * residual_batch + place;
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++)
        if (block + g < out_blocks) {
            vec4 bias = LOAD(weights, w_base + g);
            UNROLL for (int p = 0; p < PIXELS; p++) {
                int at = (column + p * strips) * STRIDE_X;
                if (at + phase_x < out_width) {
                    vec4 value = bias + vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                             sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    at += g * out_plane;
                    FINISH(value, y_index + at, residual_index + at, block + g)
                }
            }
        }
}
