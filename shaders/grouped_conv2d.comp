#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "convolution.glsl"
// Convolution with groups whose channels do not fill whole vec4 blocks (depthwise with a multiplier, 2 or 3 channels a
// group...), and its transposed form. Correct for any grouping; each output channel looks up its own input channels.
//   plain:      y[o][oy][ox] = sum_{i,ky,kx} w[o][i][ky][kx] * x[g(o)*ic + i][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx]
//   TRANSPOSED: the input row is (oy + pt - ky*dy) / sy where that is whole, likewise the column
// x, y, residual: C4; weights: [out block][1 + in_channels * kernel_h * kernel_w] of vec4 (four output channels), the bias
// first. One invocation: four output channels at one pixel. Grid: x pixels / local_size, y output blocks, z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool TRANSPOSED = false;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_channels, out_channels; // of one group
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
    int channels;
    float alpha, beta;
};

// the input position that tap k of an output position reads; -1 for none
int source(int o, int k, int stride, int dilation, int pad, int size) {
    int i = TRANSPOSED ? o + pad - k * dilation : o * stride - pad + k * dilation;
    if (TRANSPOSED) {
        int whole = i / stride;
        i = whole * stride == i ? whole : -1;
    }
    return uint(i) < uint(size) ? i : -1;
}

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    int batch = int(gl_WorkGroupID.z);
    int oy = i / out_width;
    int ox = i - oy * out_width;
    if (oy >= out_height) return;
    int plane = height * width;
    int w_index = weights_offset + block * (1 + in_channels * kernel_h * kernel_w);
    vec4 sum = LOAD(weights, w_index++);
    ivec4 first; // input channel that each of the four output channels starts at
    UNROLL for (int c = 0; c < 4; c++) first[c] = (min(block * 4 + c, channels - 1) / out_channels) * in_channels;
    for (int k = 0; k < in_channels; k++)
        for (int ky = 0; ky < kernel_h; ky++) {
            int iy = source(oy, ky, stride_y, dilation_y, pad_top, height);
            for (int kx = 0; kx < kernel_w; kx++) {
                int ix = source(ox, kx, stride_x, dilation_x, pad_left, width);
                vec4 w = LOAD(weights, w_index++);
                if (iy < 0 || ix < 0) continue;
                int texel = x_offset + batch * x_batch + iy * width + ix;
                UNROLL for (int c = 0; c < 4; c++) {
                    int channel = first[c] + k;
                    sum[c] += w[c] * LOAD(x, texel + (channel >> 2) * plane)[channel & 3];
                }
            }
        }
    int place = block * out_height * out_width + i;
    FINISH(sum, y_offset + batch * y_batch + place, residual_offset + batch * residual_batch + place, block)
}
