#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = uniform_texel, weights_texel, ssbo)
#include "convolution.glsl"
#include "phases.glsl"
#include "small_tile.glsl"
// Transposed convolution, any kernel, stride, padding and dilation; groups of whole channel blocks. The small tile: 8
// (or, without WIDE, 4) output channels at 4 outputs of a phase an invocation, written out in vec4 sums, so that nothing
// depends on the driver's compiler unrolling a loop or keeping an array in registers.
//   y[n][o][oy][ox] = activation(bias[o] + sum_{i,ky,kx} weights[i][o][ky][kx] * x[n][i][iy][ix])
//   over the taps for which iy = (oy + pt - ky*dy) / sy and ix = (ox + pl - kx*dx) / sx are whole and inside the map
// x, y, residual: C4; weights as conv_transpose2d reads them, in tiles of 8 or 4 outputs. The lanes of a workgroup share
// one phase; the four outputs of an invocation are of one row and lie `strips` apart, so that neighbouring invocations
// read neighbouring texels.
// Grid: x phases * (rows * strips of a phase / local_size), y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool WIDE = true;
const int TILE = WIDE ? 8 : 4;

READ_VEC4(0, x);
READ_WEIGHTS(1);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int height, width, out_height, out_width;
    int kernel_h, kernel_w, pad_top, pad_left;
    int channels;
    float alpha, beta;
};

// columns outside the map read a texel inside it and count as zero
vec4 read_column(int row, int column, bool row_inside) {
    vec4 texel = LOAD(x, row + clamp(column, 0, width - 1));
    return row_inside && uint(column) < uint(width) ? texel : vec4(0.0);
}

void main() {
    int strips = ((out_width + STRIDE_X - 1) / STRIDE_X + 3) / 4;
    int chunk = int(gl_WorkGroupID.x) / PHASES;
    int phase = int(gl_WorkGroupID.x) - chunk * PHASES;
    int phase_y = phase / STRIDE_X;
    int phase_x = phase - phase_y * STRIDE_X;
    int i = chunk * int(gl_WorkGroupSize.x) + int(gl_LocalInvocationID.x);
    int row = i / strips;
    int column = i - row * strips;
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = height * width;
    int taps = kernel_h * kernel_w;
    int oy = row * STRIDE_Y + phase_y;
    int ox = column * STRIDE_X + phase_x;
    if (oy >= out_height) return;

    ivec2 first_y = FIRST_TAP_Y(phase_y, pad_top), first_x = FIRST_TAP_X(phase_x, pad_left);
    int x_plane = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_index = weights_offset + int(gl_WorkGroupID.y) * (TILE / 4 + in_blocks * taps * TILE);
    vec4 a0 = LOAD_WEIGHTS(w_index), a1 = a0, a2 = a0, a3 = a0;
    vec4 b0 = WIDE ? LOAD_WEIGHTS(w_index + 1) : vec4(0.0), b1 = b0, b2 = b0, b3 = b0;
    w_index += TILE / 4;
    for (int k = 0; k < in_blocks; k++) {
        int iy = row + first_y.y;
        for (int ky = first_y.x; ky < kernel_h; ky += TAP_STEP_Y) {
            bool row_inside = uint(iy) < uint(height);
            int x_row = x_plane + clamp(iy, 0, height - 1) * width;
            int ix = column + first_x.y;
            for (int kx = first_x.x; kx < kernel_w; kx += TAP_STEP_X) {
                vec4 v0 = read_column(x_row, ix, row_inside), v1 = read_column(x_row, ix + strips, row_inside);
                vec4 v2 = read_column(x_row, ix + 2 * strips, row_inside);
                vec4 v3 = read_column(x_row, ix + 3 * strips, row_inside);
                int tap = w_index + (ky * kernel_w + kx) * TILE;
                mat4 w = LOAD_OUTPUTS(tap);
                add_products(a0, w, v0), add_products(a1, w, v1);
                add_products(a2, w, v2), add_products(a3, w, v3);
                if (WIDE) {
                    w = LOAD_OUTPUTS(tap + 4);
                    add_products(b0, w, v0), add_products(b1, w, v1);
                    add_products(b2, w, v2), add_products(b3, w, v3);
                }
                ix -= INPUT_STEP_X;
            }
            iy -= INPUT_STEP_Y;
        }
        x_plane += plane;
        w_index += taps * TILE;
    }

    int apart = strips * STRIDE_X;
    int block = tile * (TILE / 4);
    int out_plane = out_height * out_width;
    int place = (group * out_blocks + block) * out_plane + oy * out_width + ox;
    int y_index = y_offset + batch * y_batch;
    int residual_index = residual_offset + batch * residual_batch;
    UNROLL for (int n = 0; n < (WIDE ? 8 : 4); n++) {
        int p = n % 4;
        if (ox + p * apart < out_width && block + n / 4 < out_blocks) {
            vec4 sum = SUM_OF_8(n);
            int at = place + p * apart + n / 4 * out_plane;
            FINISH(sum, y_index + at, residual_index + at, block + n / 4)
        }
    }
}
