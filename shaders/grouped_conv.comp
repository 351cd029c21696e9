#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "convolution.glsl"
// Convolution over one to three spatial axes with groups whose channels do not fill whole vec4 blocks (depthwise with a
// multiplier, 2 or 3 channels a group...), and its transposed form. Correct for any grouping; each output channel looks
// up its own input channels.
//   plain:      y[o][p] = sum_{i,k} w[o][i][k] * x[g(o)*ic + i][p*stride - pad + k*dilation]
//   TRANSPOSED: the input position is (p + pad - k*dilation) / stride where that is whole
// x, y, residual: C4; weights: [out block][1 + in_channels * taps] of vec4 (four output channels), the bias first.
// One invocation: four output channels at one pixel. Grid: x pixels / local_size, y output blocks, z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool TRANSPOSED = false;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_channels, out_channels; // of one group
    int in_size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
    int channels;
    float alpha, beta;
};

// the first tap that has an input for a transposed output position, where nothing is dilated: every stride-th has
int first_tap(int axis, int o) {
    int at = o + pad[axis];
    int rest = at - at / stride[axis] * stride[axis];
    return rest < 0 ? rest + stride[axis] : rest;
}

// the input position that tap k of an output position reads on an axis; -1 for none
int source(int axis, int o, int k) {
    int i = TRANSPOSED ? o + pad[axis] - k * dilation[axis] : o * stride[axis] - pad[axis] + k * dilation[axis];
    if (TRANSPOSED) {
        int whole = i / stride[axis];
        i = whole * stride[axis] == i ? whole : -1;
    }
    return uint(i) < uint(in_size[axis]) ? i : -1;
}

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    int batch = int(gl_WorkGroupID.z);
    int row = i / out_size[2];
    int ox = i - row * out_size[2];
    int oz = row / out_size[1];
    int oy = row - oz * out_size[1];
    if (oz >= out_size[0]) return;
    int plane = in_size[0] * in_size[1] * in_size[2];
    int w_index = weights_offset + block * (1 + in_channels * kernel[0] * kernel[1] * kernel[2]);
    vec4 sum = LOAD(weights, w_index++);
    ivec4 first; // input channel that each of the four output channels starts at
    UNROLL for (int c = 0; c < 4; c++) first[c] = (min(block * 4 + c, channels - 1) / out_channels) * in_channels;
    ivec3 begin = ivec3(0), step = ivec3(1);
    if (TRANSPOSED)
        UNROLL for (int a = 0; a < 3; a++)
            if (dilation[a] == 1) {
                begin[a] = first_tap(a, ivec3(oz, oy, ox)[a]);
                step[a] = stride[a];
            }
    int w_base = w_index;
    for (int k = 0; k < in_channels; k++)
        for (int kz = begin.x; kz < kernel[0]; kz += step.x) {
            int iz = source(0, oz, kz);
            for (int ky = begin.y; ky < kernel[1]; ky += step.y) {
                int iy = source(1, oy, ky);
                for (int kx = begin.z; kx < kernel[2]; kx += step.z) {
                    int ix = source(2, ox, kx);
                    int at = w_index++;
                    if (TRANSPOSED) at = w_base + ((k * kernel[0] + kz) * kernel[1] + ky) * kernel[2] + kx;
                    vec4 w = LOAD(weights, at);
                    if (iz < 0 || iy < 0 || ix < 0) continue;
                    int texel = x_offset + batch * x_batch + (iz * in_size[1] + iy) * in_size[2] + ix;
                    UNROLL for (int c = 0; c < 4; c++) {
                        int channel = first[c] + k;
                        ADD_PRODUCT(sum[c], w[c], LOAD(x, texel + (channel >> 2) * plane)[channel & 3]);
                    }
                }
            }
        }
    int place = block * out_size[0] * out_size[1] * out_size[2] + i;
    FINISH(sum, y_offset + batch * y_batch + place, residual_offset + batch * residual_batch + place, block)
}
