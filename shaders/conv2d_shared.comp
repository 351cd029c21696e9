#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; scale = off, on; result = c4, linear)
#include "convolution.glsl"
// Convolution as a matrix product through shared memory (implicit GEMM), for GPUs with fast shared memory; any kernel,
// stride, padding and dilation; groups of whole channel blocks.
//   y[o][p] = activation(bias[o] + sum_k weights[o][k] * patches[k][p]),  k over input blocks and taps, p over pixels
// With scale = on patches are of x[n][i] * scale[n][i]. x, y, residual: C4; weights as conv2d reads them, in tiles of 64
// outputs. A workgroup of 16 x 4 * SPLIT invocations
// computes 64 outputs at 64 pixels: each invocation 16 / SPLIT outputs at 4 pixels, which lie 16 apart. DEPTH vec4 of the
// inner dimension go through shared memory at a time: 16 KiB.
// Grid: x pixels / 64, y tiles of output channels (group after group), z batch.
layout(local_size_x_id = 0) in; // 64 * SPLIT
layout(constant_id = 1) const int SPLIT = 4;
layout(constant_id = 2) const bool POINTWISE = false; // 1x1, stride 1, the map as one row
const int TILE = 64;
const int DEPTH = 8;
const int OUTPUTS = 16 / SPLIT; // of one invocation
const int PIXELS = 4;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_RESULT(3);
#if defined(SCALE_ON)
READ_VEC4(4, scale);
#endif
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
    int channels;
    float alpha, beta;
#if defined(SCALE_ON)
    int scale_offset, scale_batch;
#endif
};

shared vec4 patches[DEPTH * TILE];       // [inner][pixel]
shared vec4 outputs[DEPTH * TILE];       // [inner][output]: its weights for four input channels

void main() {
    int lane = int(gl_LocalInvocationID.x);
    int column = lane % 16; // pixels column, column + 16...
    int band = lane / 16;   // outputs band * OUTPUTS...
    int own = lane % TILE;  // the pixel, and the output, that this invocation brings to shared memory
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = height * width, out_plane = out_height * out_width;
    int taps = kernel_h * kernel_w;
    int inner = in_blocks * taps;
    int first = int(gl_WorkGroupID.x) * TILE;
    int x_base = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_base = weights_offset + int(gl_WorkGroupID.y) * (TILE / 4 + inner * TILE);

#if defined(SCALE_ON)
    int scale_base = scale_offset + batch * scale_batch + group * in_blocks;
#endif
    float sum[OUTPUTS * PIXELS];
    UNROLL for (int g = 0; g < OUTPUTS / 4; g++) {
        vec4 bias = LOAD(weights, w_base + band * (OUTPUTS / 4) + g);
        UNROLL for (int c = 0; c < 4; c++)
            UNROLL for (int p = 0; p < PIXELS; p++) sum[(4 * g + c) * PIXELS + p] = bias[c];
    }
    w_base += TILE / 4;

    // The pixel's place, and the tap of the inner dimension's next vec4, are counted: divisions take a GPU some twenty
    // operations each.
    int oy = POINTWISE ? 0 : (first + own) / out_width;
    int ox = first + own - oy * out_width;
    int top = oy * stride_y - pad_top, left = ox * stride_x - pad_left;
    bool is_pixel = first + own < out_plane;
    int next = lane / TILE; // of the inner dimension
    int block = POINTWISE ? next : next / taps;
    int ky = POINTWISE ? 0 : (next - block * taps) / kernel_w;
    int kx = POINTWISE ? 0 : next - block * taps - ky * kernel_w;

    for (int start = 0; start < inner; start += DEPTH) {
        UNROLL for (int d = 0; d < DEPTH; d += SPLIT) {
            int i = (d + lane / TILE) * TILE + own;
            // past the end of the inner dimension both are zero; pixels past the end are not stored
            bool there = next < inner;
            outputs[i] = there ? LOAD(weights, w_base + next * TILE + own) : vec4(0.0);
            int iy = top + ky * dilation_y, ix = left + kx * dilation_x;
            there = there && is_pixel && uint(iy) < uint(height) && uint(ix) < uint(width);
            patches[i] = there ? LOAD(x, x_base + block * plane + iy * width + ix) : vec4(0.0);
#if defined(SCALE_ON)
            if (there) patches[i] *= LOAD(scale, scale_base + block);
#endif
            next += SPLIT;
            if (POINTWISE) {
                block = next;
                continue;
            }
            for (kx += SPLIT; kx >= kernel_w; kx -= kernel_w) ky++;
            for (; ky >= kernel_h; ky -= kernel_h) block++;
        }
        barrier();
        for (int k = 0; k < DEPTH; k++) {
            vec4 v[PIXELS];
            UNROLL for (int p = 0; p < PIXELS; p++) v[p] = patches[k * TILE + column + p * 16];
            UNROLL for (int o = 0; o < OUTPUTS; o++) {
                vec4 w = outputs[k * TILE + band * OUTPUTS + o];
                UNROLL for (int c = 0; c < 4; c++)
                    UNROLL for (int p = 0; p < PIXELS; p++) ADD_PRODUCT(sum[o * PIXELS + p], w[c], v[p][c]);
            }
        }
        barrier();
    }

    int own_block = (tile * TILE + band * OUTPUTS) / 4;
    int first_block = group * out_blocks + own_block;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    UNROLL for (int g = 0; g < OUTPUTS / 4; g++)
        if (own_block + g < out_blocks) {
            UNROLL for (int p = 0; p < PIXELS; p++)
                if (first + column + p * 16 < out_plane) {
                    vec4 value = vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                      sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    FINISH_AT(value, y_start, residual_start, first_block + g, out_plane, first + column + p * 16)
                }
        }
}
