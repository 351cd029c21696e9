#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "convolution.glsl"
// Transposed convolution in gather form; groups of whole channel blocks.
//   y[n][o][oy][ox] = activation(bias[o] + sum_{i,ky,kx} weights[i][o][ky][kx] * x[n][i][iy][ix])
//   over the taps for which iy = (oy + pt - ky*dy) / sy and ix = (ox + pl - kx*dx) / sx are whole and inside the map
// x, y, residual: C4. Outputs of one phase (ox mod sx) read the same taps of neighbouring inputs, so one invocation computes
// OUTPUT_TILE channels at PIXELS outputs of one phase: a small dense convolution.
// Grid: x = rows * phases * strips / local_size, y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 8;
layout(constant_id = 2) const int PIXELS = 4;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
    int channels;
    float alpha, beta;
};

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int strips = ((out_width + stride_x - 1) / stride_x + PIXELS - 1) / PIXELS;
    int oy = i / (strips * stride_x);
    int in_row = i - oy * strips * stride_x;
    int phase = in_row / strips;
    int ox = phase + (in_row - phase * strips) * PIXELS * stride_x; // and ox + stride_x, ox + 2 stride_x...
    if (oy >= out_height) return;
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = height * width;
    int taps = kernel_h * kernel_w;

    int x_base = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_base = weights_offset + int(gl_WorkGroupID.y) * (OUTPUT_TILE / 4 + in_blocks * taps * OUTPUT_TILE);
    float sum[OUTPUT_TILE * PIXELS];
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++) {
        vec4 bias = LOAD(weights, w_base + g);
        UNROLL for (int c = 0; c < 4; c++)
            UNROLL for (int p = 0; p < PIXELS; p++) sum[(4 * g + c) * PIXELS + p] = bias[c];
    }
    w_base += OUTPUT_TILE / 4;

    for (int ky = 0; ky < kernel_h; ky++) {
        int ty = oy + pad_top - ky * dilation_y;
        int iy = ty / stride_y;
        if (ty < 0 || iy * stride_y != ty || iy >= height) continue;
        for (int kx = 0; kx < kernel_w; kx++) {
            int tx = ox + pad_left - kx * dilation_x;
            // floor division: tx may be negative where a later pixel of the strip is inside
            int ix = tx >= 0 ? tx / stride_x : -((stride_x - 1 - tx) / stride_x);
            if (ix * stride_x != tx) continue;
            bool inside[PIXELS];
            int at[PIXELS];
            UNROLL for (int p = 0; p < PIXELS; p++) {
                inside[p] = uint(ix + p) < uint(width);
                at[p] = iy * width + clamp(ix + p, 0, width - 1);
            }
            int w_index = w_base + (ky * kernel_w + kx) * OUTPUT_TILE;
            int x_index = x_base;
            for (int k = 0; k < in_blocks; k++) {
                vec4 v[PIXELS];
                UNROLL for (int p = 0; p < PIXELS; p++) {
                    vec4 texel = LOAD(x, x_index + at[p]);
                    v[p] = inside[p] ? texel : vec4(0.0);
                }
                UNROLL for (int o = 0; o < OUTPUT_TILE; o++) {
                    vec4 w = LOAD(weights, w_index + o);
                    UNROLL for (int c = 0; c < 4; c++)
                        UNROLL for (int p = 0; p < PIXELS; p++) sum[o * PIXELS + p] += w[c] * v[p][c];
                }
                x_index += plane;
                w_index += taps * OUTPUT_TILE;
            }
        }
    }

    int block = tile * (OUTPUT_TILE / 4);
    int out_plane = out_height * out_width;
    int place = (group * out_blocks + block) * out_plane + oy * out_width;
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++)
        if (block + g < out_blocks) {
            UNROLL for (int p = 0; p < PIXELS; p++) {
                int column = ox + p * stride_x;
                if (column < out_width) {
                    vec4 value = vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                      sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    int at = place + g * out_plane + column;
                    FINISH(value, y_offset + batch * y_batch + at, residual_offset + batch * residual_batch + at,
                           block + g)
                }
            }
        }
}
