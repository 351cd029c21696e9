#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; shuffle = on, off; result = c4, linear)
#include "convolution.glsl"
// Direct convolution, any kernel, stride, padding and dilation; groups of whole channel blocks.
//   y[n][o][oy][ox] = activation(bias[o] + sum_{i,ky,kx} weights[o][i][ky][kx] * x[n][i][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx])
// x, y, residual: C4. One invocation: OUTPUT_TILE output channels at PIXELS neighbouring pixels of one row. With ROW_REUSE
// a row of input is loaded once and used by all taps of that row.
// Grid: x rows * ceil(out_width / PIXELS) / local_size, y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 16;
layout(constant_id = 2) const int PIXELS = 4;
layout(constant_id = 3) const int KERNEL_W = 3;
layout(constant_id = 4) const int STRIDE_X = 1;
layout(constant_id = 5) const int DILATION_X = 1;
layout(constant_id = 6) const bool ROW_REUSE = true;
layout(constant_id = 7) const int CHANNELS = 4; // of an input block; fewer only where there is one block (RGB, grey)
const int LANES = 8;
const int SPAN = (PIXELS - 1) * STRIDE_X + (KERNEL_W - 1) * DILATION_X + 1;
const int LOADED = ROW_REUSE ? SPAN : PIXELS;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_RESULT(3);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int height, width, out_height, out_width;
    int kernel_h, stride_y, dilation_y, pad_top, pad_left;
    int channels;
    float alpha, beta;
};

// sum += weights at w_index (OUTPUT_TILE vec4) times v at PIXELS positions FIRST, FIRST + STEP...
#if defined(SHUFFLE_ON)
#define ACCUMULATE(v, FIRST, STEP)                                                                       \
    UNROLL for (int g = 0; g < OUTPUT_TILE / LANES; g++) {                                               \
        vec4 w = LOAD(weights, w_index + g * LANES);                                                     \
        UNROLL for (int o = 0; o < LANES; o++)                                                           \
            UNROLL for (int c = 0; c < CHANNELS; c++) {                                                  \
                float s = subgroupShuffle(w[c], uint(o));                                                \
                UNROLL for (int p = 0; p < PIXELS; p++)                                                  \
                    ADD_PRODUCT(sum[(g * LANES + o) * PIXELS + p], s, v[(FIRST) + p * (STEP)][c]);       \
            }                                                                                            \
    }
#else
#define ACCUMULATE(v, FIRST, STEP)                                                                       \
    UNROLL for (int o = 0; o < OUTPUT_TILE; o++) {                                                       \
        vec4 w = LOAD(weights, w_index + o);                                                             \
        UNROLL for (int c = 0; c < CHANNELS; c++)                                                        \
            UNROLL for (int p = 0; p < PIXELS; p++)                                                      \
                ADD_PRODUCT(sum[o * PIXELS + p], w[c], v[(FIRST) + p * (STEP)][c]);                      \
    }
#endif

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int strips = (out_width + PIXELS - 1) / PIXELS;
    int oy = i / strips;
    int ox = (i - oy * strips) * PIXELS;
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = height * width;

    int iy0 = oy * stride_y - pad_top;
    int ix0 = ox * STRIDE_X - pad_left;
    int x_plane = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_index =
        weights_offset + int(gl_WorkGroupID.y) * (OUTPUT_TILE / 4 + in_blocks * kernel_h * KERNEL_W * OUTPUT_TILE);
    vec4 bias[OUTPUT_TILE / 4];
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++) bias[g] = LOAD(weights, w_index + g);
    w_index += OUTPUT_TILE / 4;
#if defined(SHUFFLE_ON)
    w_index += int(gl_SubgroupInvocationID % LANES);
#endif

    // columns outside the map read a texel inside it and count as zero
    bool inside[SPAN];
    int column[SPAN];
    UNROLL for (int p = 0; p < SPAN; p++) {
        inside[p] = uint(ix0 + p) < uint(width);
        column[p] = clamp(ix0 + p, 0, width - 1);
    }
    float sum[OUTPUT_TILE * PIXELS];
    UNROLL for (int j = 0; j < OUTPUT_TILE * PIXELS; j++) sum[j] = 0.0;

    // One loop over blocks and rows: two, one in the other, take lavapipe a third longer, which then merges all sums
    // under two execution masks.
    int ky = 0;
    for (int turn = in_blocks * kernel_h; turn > 0; turn--) {
        int iy = iy0 + ky * dilation_y;
        bool row_inside = uint(iy) < uint(height);
        int row = x_plane + clamp(iy, 0, height - 1) * width;
        vec4 v[LOADED];
        if (ROW_REUSE) {
            UNROLL for (int p = 0; p < SPAN; p++) {
                vec4 texel = LOAD(x, row + column[p]);
                v[p] = row_inside && inside[p] ? texel : vec4(0.0);
            }
        }
        UNROLL for (int kx = 0; kx < KERNEL_W; kx++) {
            if (ROW_REUSE) {
                ACCUMULATE(v, kx * DILATION_X, STRIDE_X)
            } else {
                UNROLL for (int p = 0; p < PIXELS; p++) {
                    vec4 texel = LOAD(x, row + column[p * STRIDE_X + kx * DILATION_X]);
                    v[p] = row_inside && inside[p * STRIDE_X + kx * DILATION_X] ? texel : vec4(0.0);
                }
                ACCUMULATE(v, 0, 1)
            }
            w_index += OUTPUT_TILE;
        }
        bool last = ky == kernel_h - 1;
        ky = last ? 0 : ky + 1;
        x_plane += last ? plane : 0;
    }

    if (oy >= out_height) return;
    int block = tile * (OUTPUT_TILE / 4);
    int out_plane = out_height * out_width;
    int first_block = group * out_blocks + block;
    int pixel = oy * out_width + ox;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++)
        if (block + g < out_blocks) {
            UNROLL for (int p = 0; p < PIXELS; p++)
                if (ox + p < out_width) {
                    vec4 value = bias[g] + vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                                sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    FINISH_AT(value, y_start, residual_start, first_block + g, out_plane, pixel + p)
                }
        }
}
