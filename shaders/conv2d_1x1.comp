#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; scale = off, on; result = c4, linear)
#include "convolution.glsl"
// 1x1 convolution: a matrix product over channels at each pixel. Its sibling with shuffles is conv2d_1x1_subgroup.
//   y[n][o][p] = activation(bias[o] + sum_i weights[o][i] * x[n][i][p]), with scale = on of x[n][i][p] * scale[n][i]
// x, y, residual: C4, [n][channels/4][pixels] of vec4. One invocation: OUTPUT_TILE output channels at PIXELS pixels that
// lie a workgroup's width apart, so that neighbouring invocations read neighbouring texels.
// STRIDED: x's pixel of output (oy, ox) is origin + oy * row_step + ox * column_step, else that of the same number.
// Grid: x pixels / (local_size * PIXELS), y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 16;
layout(constant_id = 2) const int PIXELS = 4;
layout(constant_id = 3) const bool STRIDED = false;

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
    int pixels, in_pixels, origin, out_width, row_step, column_step;
    int channels;
    float alpha, beta;
#if defined(SCALE_ON)
    int scale_offset, scale_batch;
#endif
};

void main() {
    int lanes = int(gl_WorkGroupSize.x);
    int first = int(gl_WorkGroupID.x) * lanes * PIXELS + int(gl_LocalInvocationID.x);
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);

    int x_index = x_offset + batch * x_batch + group * in_blocks * in_pixels;
    int w_index = weights_offset + int(gl_WorkGroupID.y) * (OUTPUT_TILE / 4 + in_blocks * OUTPUT_TILE);
    vec4 bias[OUTPUT_TILE / 4];
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++) bias[g] = LOAD(weights, w_index + g);
    w_index += OUTPUT_TILE / 4;
    // pixels past the end read the last one and are not stored
    int at[PIXELS], from[PIXELS];
    UNROLL for (int p = 0; p < PIXELS; p++) {
        at[p] = min(first + p * lanes, pixels - 1);
        from[p] = at[p];
        if (STRIDED) {
            int oy = at[p] / out_width;
            from[p] = origin + oy * row_step + (at[p] - oy * out_width) * column_step;
        }
    }

#if defined(SCALE_ON)
    int scale_index = scale_offset + batch * scale_batch + group * in_blocks;
#endif
    float sum[OUTPUT_TILE * PIXELS];
    UNROLL for (int j = 0; j < OUTPUT_TILE * PIXELS; j++) sum[j] = 0.0;
    for (int k = 0; k < in_blocks; k++) {
        vec4 v[PIXELS];
        UNROLL for (int p = 0; p < PIXELS; p++) v[p] = LOAD(x, x_index + from[p]);
#if defined(SCALE_ON)
        vec4 factor = LOAD(scale, scale_index + k);
        UNROLL for (int p = 0; p < PIXELS; p++) v[p] *= factor;
#endif
        UNROLL for (int o = 0; o < OUTPUT_TILE; o++) {
            vec4 w = LOAD(weights, w_index + o);
            UNROLL for (int c = 0; c < 4; c++)
                UNROLL for (int p = 0; p < PIXELS; p++) ADD_PRODUCT(sum[o * PIXELS + p], w[c], v[p][c]);
        }
        x_index += in_pixels;
        w_index += OUTPUT_TILE;
    }

    int block = tile * (OUTPUT_TILE / 4);
    int first_block = group * out_blocks + block;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    UNROLL for (int p = 0; p < PIXELS; p++)
        if (first + p * lanes < pixels) {
            UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++)
                if (block + g < out_blocks) {
                    vec4 v = bias[g] + vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                            sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    FINISH_AT(v, y_start, residual_start, first_block + g, pixels, at[p])
                }
        }
}
