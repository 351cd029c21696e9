#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = uniform_texel, weights_texel, ssbo; scale = off, on; result = c4, linear; taps = one, sliding, any)
#include "convolution.glsl"
#include "small_tile.glsl"
// Direct convolution, any kernel, stride, padding and dilation; groups of whole channel blocks. The small tile: 8 (or,
// without WIDE, 4) output channels at 4 pixels an invocation, written out in vec4 sums, so that nothing depends on the
// driver's compiler unrolling a loop or keeping an array in registers.
//   y[n][o][oy][ox] = activation(bias[o] + sum_{i,ky,kx} weights[o][i][ky][kx] * x[n][i][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx])
// With scale = on x[n][i] is multiplied by scale[n][i]. x, y, residual: C4; weights as conv2d reads them, in tiles of 8
// or 4 outputs. The four pixels lie below each other (strip.glsl), with taps = one (1x1, stride 1, the map as one row) a
// workgroup's width apart: neighbouring invocations read neighbouring texels either way.
// Grid: x ceil(out_height / 4) * out_width / local_size, y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool WIDE = true;
const int TILE = WIDE ? 8 : 4;

READ_VEC4(0, x);
READ_WEIGHTS(1);
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

#if defined(SCALE_ON)
vec4 factor; // of the block that is read; padding is no texel and not multiplied
#define TEXEL(at) (LOAD(x, at) * factor)
#else
#define TEXEL(at) LOAD(x, at)
#endif
#include "strip.glsl"

// sums of the taps' products, four channels of an output each
#define ADD_TAP(place, v0, v1, v2, v3)                                                                                 \
    {                                                                                                                  \
        int outputs = w_index + (place) * TILE;                                                                        \
        mat4 w = LOAD_OUTPUTS(outputs);                                                                                \
        add_products(a0, w, v0), add_products(a1, w, v1), add_products(a2, w, v2), add_products(a3, w, v3);            \
        if (WIDE) {                                                                                                    \
            w = LOAD_OUTPUTS(outputs + 4);                                                                             \
            add_products(b0, w, v0), add_products(b1, w, v1), add_products(b2, w, v2), add_products(b3, w, v3);        \
        }                                                                                                              \
    }

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int strip = i / out_width;
    int ox = i - strip * out_width;
    int oy = strip * 4;
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    // the pixels' places in the result, and which of them exist
    int first = oy, between = 1, end = out_height;
    int pixel = oy * OUTPUT_ROW + ox * OUTPUT_COLUMN, apart = OUTPUT_ROW;
#if defined(TAPS_ONE)
    between = apart = int(gl_WorkGroupSize.x);
    first = pixel = int(gl_WorkGroupID.x) * between * 4 + int(gl_LocalInvocationID.x);
    end = out_width;
#endif
    if (first >= end) return;
    int plane = height * width;
    int top = oy * stride_y - pad_top, left = ox * stride_x - pad_left;
    int x_plane = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_index = weights_offset + int(gl_WorkGroupID.y) * (TILE / 4 + in_blocks * kernel_h * kernel_w * TILE);

    vec4 a0 = LOAD_WEIGHTS(w_index), a1 = a0, a2 = a0, a3 = a0;
    vec4 b0 = WIDE ? LOAD_WEIGHTS(w_index + 1) : vec4(0.0), b1 = b0, b2 = b0, b3 = b0;
    w_index += TILE / 4;
#if defined(SCALE_ON)
    int scale_index = scale_offset + batch * scale_batch + group * in_blocks;
#endif
#if defined(TAPS_ONE)
    // pixels past the end read the last one
    int p1 = min(first + between, end - 1), p2 = min(first + 2 * between, end - 1), p3 = min(first + 3 * between, end - 1);
#endif
    for (int k = 0; k < in_blocks; k++) {
#if defined(SCALE_ON)
        factor = LOAD(scale, scale_index + k);
#endif
#if defined(TAPS_ONE)
        vec4 v0 = TEXEL(x_plane + first), v1 = TEXEL(x_plane + p1), v2 = TEXEL(x_plane + p2), v3 = TEXEL(x_plane + p3);
        ADD_TAP(0, v0, v1, v2, v3)
#else
        FOR_TAPS(x_plane, top, left, ADD_TAP)
#endif
        x_plane += plane;
        w_index += kernel_h * kernel_w * TILE;
    }

    int block = tile * (TILE / 4);
    int out_plane = out_height * out_width;
    int first_block = group * out_blocks + block;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    UNROLL for (int n = 0; n < (WIDE ? 8 : 4); n++) {
        int p = n % 4;
        if (first + p * between < end && block + n / 4 < out_blocks) {
            vec4 sum = SUM_OF_8(n);
            FINISH_AT(sum, y_start, residual_start, first_block + n / 4, out_plane, pixel + p * apart)
        }
    }
}
