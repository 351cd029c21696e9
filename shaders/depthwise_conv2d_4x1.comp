#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; taps = sliding, any)
#include "convolution.glsl"
#include "small_tile.glsl"
// Depthwise convolution with a small fixed tile: four channels at 4 pixels below each other an invocation (strip.glsl),
// written out, so that nothing depends on the driver's compiler unrolling a loop or keeping an array in registers.
//   y[n][c][oy][ox] = activation(bias[c] + sum_{ky,kx} weights[c][ky][kx] * x[n][c][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx])
// x, y, residual: C4; weights: [channel block][1 + kernel_h * kernel_w] of vec4, the bias first.
// Grid: x ceil(out_height / 4) * out_width / local_size, y channel blocks, z batch.
layout(local_size_x_id = 0) in;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
    int channels;
    float alpha, beta;
};

#define TEXEL(at) LOAD(x, at)
#include "strip.glsl"

#define ADD_TAP(place, v0, v1, v2, v3)                                                                                 \
    {                                                                                                                  \
        vec4 w = LOAD(weights, w_index + (place));                                                                     \
        ADD_PRODUCT(a0, w, v0), ADD_PRODUCT(a1, w, v1), ADD_PRODUCT(a2, w, v2), ADD_PRODUCT(a3, w, v3);                \
    }

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    int batch = int(gl_WorkGroupID.z);
    int strip = i / out_width;
    int ox = i - strip * out_width;
    int oy = strip * 4;
    if (oy >= out_height) return;
    int top = oy * stride_y - pad_top, left = ox * stride_x - pad_left;
    int x_plane = x_offset + batch * x_batch + block * height * width;
    int w_index = weights_offset + block * (1 + kernel_h * kernel_w);

    vec4 a0 = LOAD(weights, w_index), a1 = a0, a2 = a0, a3 = a0;
    w_index++;
    FOR_TAPS(x_plane, top, left, ADD_TAP)
    int place = block * out_height * out_width + oy * OUTPUT_ROW + ox * OUTPUT_COLUMN;
    int y_index = y_offset + batch * y_batch + place;
    int residual_index = residual_offset + batch * residual_batch + place;
    UNROLL for (int p = 0; p < 4; p++)
        if (oy + p < out_height) {
            vec4 sum = SUM_OF_4(p, a0, a1, a2, a3);
            FINISH(sum, y_index + p * OUTPUT_ROW, residual_index + p * OUTPUT_ROW, block)
        }
}
