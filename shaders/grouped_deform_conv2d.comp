#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; residual = off, on)
#include "convolution.glsl"
#include "grid.glsl"
#include "bilinear.glsl"
// Deformable convolution with groups or offset groups that do not fill whole vec4 blocks: the formula is that of
// deform_conv2d.comp, and each output channel looks up its own input channels and their positions.
// x, residual, y: C4; positions: [n][offset group, tap][pixel] of vec4(row, column, factor, 0); weights: [out block][1 +
// in_channels * taps] of vec4 (four output channels), the bias first. One invocation: four output channels at one pixel.
// Grid: x pixels, y output blocks, z batch.
READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, positions);
WRITE_BUFFER(3, y, vec4);
#if defined(RESIDUAL_ON)
READ_VEC4(4, residual);
#endif
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, positions_offset, y_offset, y_batch;
    int batches, in_channels, out_channels; // channels of one group
    int part_channels;                      // channels of one offset group
    int height, width, pixels, taps, pairs;
    int channels;
    float alpha, beta;
#if defined(RESIDUAL_ON)
    int residual_offset, residual_batch;
#endif
};

void main() {
    int plane = height * width;
    int row = 1 + in_channels * taps;
    FOR_Z(n, batches) FOR_Y(block, (channels + 3) / 4) FOR_X(p, pixels) {
        int w_base = weights_offset + block * row;
        vec4 sum = LOAD(weights, w_base);
        UNROLL for (int c = 0; c < 4; c++) {
            int first = (min(block * 4 + c, channels - 1) / out_channels) * in_channels;
            for (int tap = 0; tap < taps; tap++) {
                ivec4 at = ivec4(0);
                vec4 weight = vec4(0.0);
                int last_part = -1;
                for (int k = 0; k < in_channels; k++) {
                    int channel = first + k;
                    int part = channel / part_channels;
                    if (part != last_part) {
                        vec4 place = LOAD(positions, positions_offset + (n * pairs + part * taps + tap) * pixels + p);
                        bilinear(place.xyz, height, width, at, weight);
                        last_part = part;
                    }
                    vec4 v;
                    SAMPLE(v, x, x_offset + n * x_batch + (channel >> 2) * plane, at, weight)
                    ADD_PRODUCT(sum[c], LOAD(weights, w_base + 1 + k * taps + tap)[c], v[channel & 3]);
                }
            }
        }
        int at = block * pixels + p;
        FINISH(sum, y_offset + n * y_batch + at, residual_offset + n * residual_batch + at, block)
    }
}
