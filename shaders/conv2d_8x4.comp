#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; scale = off, on; result = c4, linear)
#include "convolution.glsl"
#include "small_tile.glsl"
// Direct convolution, any kernel, stride, padding and dilation; groups of whole channel blocks. The small tile: 8 (or,
// without WIDE, 4) output channels at 4 pixels an invocation, written out in vec4 sums, so that nothing depends on the
// driver's compiler unrolling a loop or keeping an array in registers.
//   y[n][o][oy][ox] = activation(bias[o] + sum_{i,ky,kx} weights[o][i][ky][kx] * x[n][i][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx])
// With scale = on x[n][i] is multiplied by scale[n][i]. x, y, residual: C4; weights as conv2d reads them, in tiles of 8
// or 4 outputs. The four pixels are neighbours of one row; with POINTWISE (1x1, stride 1, the map as one row) they lie a
// workgroup's width apart, so that neighbouring invocations read neighbouring texels.
// Grid: x rows * ceil(out_width / 4) / local_size, y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool WIDE = true;
layout(constant_id = 2) const bool POINTWISE = false;
const int TILE = WIDE ? 8 : 4;

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

#if defined(SCALE_ON)
vec4 factor; // of the block that is read
#endif

// columns outside the map read a texel inside it and count as zero
vec4 read_column(int row, int column, bool row_inside) {
    vec4 texel = LOAD(x, row + clamp(column, 0, width - 1));
#if defined(SCALE_ON)
    texel *= factor;
#endif
    return row_inside && uint(column) < uint(width) ? texel : vec4(0.0);
}

// the sums of one pixel, stored where the pixel exists
#define STORE(p, low, high)                                                                                            \
    if (ox + p * apart < out_width) {                                                                                  \
        int at = pixel + p * apart;                                                                                    \
        FINISH_AT(low, y_start, residual_start, first_block, out_plane, at)                                            \
        if (WIDE && block + 1 < out_blocks)                                                                            \
            FINISH_AT(high, y_start, residual_start, first_block + 1, out_plane, at)                                   \
    }

void main() {
    int lanes = int(gl_WorkGroupSize.x);
    int i = int(gl_GlobalInvocationID.x);
    int strips = (out_width + 3) / 4;
    int oy = i / strips;
    int ox = (i - oy * strips) * 4;
    int apart = 1;
    if (POINTWISE) {
        oy = 0;
        ox = int(gl_WorkGroupID.x) * lanes * 4 + int(gl_LocalInvocationID.x);
        apart = lanes;
    }
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    if (oy >= out_height) return;
    int plane = height * width;
    int step_x = apart * stride_x;
    int iy0 = oy * stride_y - pad_top;
    int ix0 = ox * stride_x - pad_left;
    int x_plane = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_index = weights_offset + int(gl_WorkGroupID.y) * (TILE / 4 + in_blocks * kernel_h * kernel_w * TILE);

    vec4 a0 = LOAD(weights, w_index), a1 = a0, a2 = a0, a3 = a0;
    vec4 b0 = WIDE ? LOAD(weights, w_index + 1) : vec4(0.0), b1 = b0, b2 = b0, b3 = b0;
    w_index += TILE / 4;
#if defined(SCALE_ON)
    int scale_index = scale_offset + batch * scale_batch + group * in_blocks;
#endif
    for (int k = 0; k < in_blocks; k++) {
#if defined(SCALE_ON)
        factor = LOAD(scale, scale_index + k);
#endif
        for (int ky = 0; ky < kernel_h; ky++) {
            int iy = iy0 + ky * dilation_y;
            bool row_inside = uint(iy) < uint(height);
            int row = x_plane + clamp(iy, 0, height - 1) * width;
            int column = ix0;
            for (int kx = 0; kx < kernel_w; kx++) {
                vec4 v0 = read_column(row, column, row_inside), v1 = read_column(row, column + step_x, row_inside);
                vec4 v2 = read_column(row, column + 2 * step_x, row_inside);
                vec4 v3 = read_column(row, column + 3 * step_x, row_inside);
                mat4 w = LOAD_OUTPUTS(w_index);
                add_products(a0, w, v0), add_products(a1, w, v1);
                add_products(a2, w, v2), add_products(a3, w, v3);
                if (WIDE) {
                    w = LOAD_OUTPUTS(w_index + 4);
                    add_products(b0, w, v0), add_products(b1, w, v1);
                    add_products(b2, w, v2), add_products(b3, w, v3);
                }
                column += dilation_x;
                w_index += TILE;
            }
        }
        x_plane += plane;
    }

    int block = tile * (TILE / 4);
    int out_plane = out_height * out_width;
    int first_block = group * out_blocks + block;
    int pixel = oy * out_width + ox;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    STORE(0, a0, b0)
    STORE(1, a1, b1)
    STORE(2, a2, b2)
    STORE(3, a3, b3)
}
