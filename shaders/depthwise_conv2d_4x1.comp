#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "convolution.glsl"
// Depthwise convolution with a small fixed tile: four channels at 4 neighbouring pixels of a row an invocation, written
// out, so that nothing depends on the driver's compiler unrolling a loop or keeping an array in registers.
//   y[n][c][oy][ox] = activation(bias[c] + sum_{ky,kx} weights[c][ky][kx] * x[n][c][oy*sy - pt + ky*dy][ox*sx - pl + kx*dx])
// x, y, residual: C4; weights: [channel block][1 + kernel_h * kernel_w] of vec4, the bias first.
// Grid: x rows * ceil(out_width / 4) / local_size, y channel blocks, z batch.
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

// columns outside the map read a texel inside it and count as zero
vec4 read_column(int row, int column, bool row_inside) {
    vec4 texel = LOAD(x, row + clamp(column, 0, width - 1));
    return row_inside && uint(column) < uint(width) ? texel : vec4(0.0);
}

#define STORE(p, value)                                                                                                \
    if (ox + p < out_width) FINISH(value, y_index + p, residual_index + p, block)

void main() {
    int i = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    int batch = int(gl_WorkGroupID.z);
    int strips = (out_width + 3) / 4;
    int oy = i / strips;
    int ox = (i - oy * strips) * 4;
    if (oy >= out_height) return;
    int iy0 = oy * stride_y - pad_top;
    int ix0 = ox * stride_x - pad_left;
    int x_plane = x_offset + batch * x_batch + block * height * width;
    int w_index = weights_offset + block * (1 + kernel_h * kernel_w);

    vec4 a0 = LOAD(weights, w_index), a1 = a0, a2 = a0, a3 = a0;
    for (int ky = 0; ky < kernel_h; ky++) {
        int iy = iy0 + ky * dilation_y;
        bool row_inside = uint(iy) < uint(height);
        int row = x_plane + clamp(iy, 0, height - 1) * width;
        int column = ix0;
        for (int kx = 0; kx < kernel_w; kx++) {
            w_index++;
            vec4 w = LOAD(weights, w_index);
            ADD_PRODUCT(a0, w, read_column(row, column, row_inside));
            ADD_PRODUCT(a1, w, read_column(row, column + stride_x, row_inside));
            ADD_PRODUCT(a2, w, read_column(row, column + 2 * stride_x, row_inside));
            ADD_PRODUCT(a3, w, read_column(row, column + 3 * stride_x, row_inside));
            column += dilation_x;
        }
    }
    int place = (block * out_height + oy) * out_width + ox;
    int y_index = y_offset + batch * y_batch + place;
    int residual_index = residual_offset + batch * residual_batch + place;
    STORE(0, a0)
    STORE(1, a1)
    STORE(2, a2)
    STORE(3, a3)
}
