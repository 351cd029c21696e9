#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "convolution.glsl"
// Depthwise convolution: each channel has its own kernel.
//   y[n][c][oy][ox] = activation(bias[c] + sum_{ky,kx} weights[c][ky][kx] * x[n][c][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx])
// x, y, residual: C4; weights: [channel block][1 + kernel_h * KERNEL_W] of vec4, the bias first. One invocation: four
// channels at PIXELS x ROWS pixels; every input row is loaded once and used by all output rows that need it.
// Grid: x strips / local_size, y channel blocks, z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int PIXELS = 4;
layout(constant_id = 2) const int ROWS = 4;
layout(constant_id = 3) const int KERNEL_W = 3;
layout(constant_id = 4) const int KERNEL_H = 3;
layout(constant_id = 5) const int STRIDE_X = 1;
layout(constant_id = 6) const int STRIDE_Y = 1;
layout(constant_id = 7) const int DILATION_X = 1;
layout(constant_id = 8) const int DILATION_Y = 1;
const int SPAN = (PIXELS - 1) * STRIDE_X + (KERNEL_W - 1) * DILATION_X + 1;
const int INPUT_ROWS = (ROWS - 1) * STRIDE_Y + (KERNEL_H - 1) * DILATION_Y + 1;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int height, width, out_height, out_width;
    int pad_top, pad_left;
    int channels;
    float alpha, beta;
};

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    int batch = int(gl_WorkGroupID.z);
    int strips = (out_width + PIXELS - 1) / PIXELS;
    int oy = i / strips;
    int ox = (i - oy * strips) * PIXELS;
    oy *= ROWS;
    int iy0 = oy * STRIDE_Y - pad_top;
    int ix0 = ox * STRIDE_X - pad_left;
    int x_plane = x_offset + batch * x_batch + block * height * width;
    int w_index = weights_offset + block * (1 + KERNEL_H * KERNEL_W);

    bool inside[SPAN];
    int column[SPAN];
    UNROLL for (int p = 0; p < SPAN; p++) {
        inside[p] = uint(ix0 + p) < uint(width);
        column[p] = clamp(ix0 + p, 0, width - 1);
    }
    vec4 w[KERNEL_H * KERNEL_W];
    UNROLL for (int k = 0; k < KERNEL_H * KERNEL_W; k++) w[k] = LOAD(weights, w_index + 1 + k);
    vec4 bias = LOAD(weights, w_index);
    vec4 sum[PIXELS * ROWS];
    UNROLL for (int j = 0; j < PIXELS * ROWS; j++) sum[j] = bias;

    UNROLL for (int r = 0; r < INPUT_ROWS; r++) {
        int iy = iy0 + r;
        bool row_inside = uint(iy) < uint(height);
        int row = x_plane + clamp(iy, 0, height - 1) * width;
        vec4 v[SPAN];
        UNROLL for (int p = 0; p < SPAN; p++) {
            vec4 texel = LOAD(x, row + column[p]);
            v[p] = row_inside && inside[p] ? texel : vec4(0.0);
        }
        UNROLL for (int q = 0; q < ROWS; q++)
            UNROLL for (int ky = 0; ky < KERNEL_H; ky++)
                if (r == q * STRIDE_Y + ky * DILATION_Y)
                    UNROLL for (int kx = 0; kx < KERNEL_W; kx++)
                        UNROLL for (int p = 0; p < PIXELS; p++)
                            ADD_PRODUCT(sum[q * PIXELS + p], w[ky * KERNEL_W + kx], v[p * STRIDE_X + kx * DILATION_X]);
    }
    int place = (block * out_height + oy) * out_width + ox;
    int y_index = y_offset + batch * y_batch + place;
    int residual_index = residual_offset + batch * residual_batch + place;
    UNROLL for (int q = 0; q < ROWS; q++)
        UNROLL for (int p = 0; p < PIXELS; p++)
            if (oy + q < out_height && ox + p < out_width)
                FINISH(sum[q * PIXELS + p], y_index + q * out_width + p, residual_index + q * out_width + p, block)
}
