#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; size = f4, f2; result = c4, linear)
#include "convolution.glsl"
// Winograd F(m x m, 3x3) for m = 4 or 2, last of three steps: A^T p A for every patch p, then bias, activation and
// residual.
// x: [(m + 2)^2 elements][output channel block][patch of all batches] of vec4; y, residual: C4. One invocation: m x m
// outputs of four channels. Grid: x patches / local_size, y channel blocks.
layout(local_size_x_id = 0) in;
#if defined(SIZE_F4)
const int OUTPUTS = 4;
#else
const int OUTPUTS = 2;
#endif
const int PATCH = OUTPUTS + 2;

READ_VEC4(0, x);
READ_VEC4(1, bias);
READ_VEC4(2, residual);
WRITE_RESULT(3);
layout(push_constant) uniform Push {
    int x_offset, bias_offset, residual_offset, residual_batch, y_offset, y_batch;
    int out_height, out_width;
    int tiles_y, tiles_x, patches; // patches of one map, and of all batches
    int out_blocks;
    int channels;
    float alpha, beta;
};

// A^T times the values of a row or a column
void transform(vec4 m[PATCH], out vec4 s[OUTPUTS]) {
#if defined(SIZE_F4)
    vec4 sum1 = m[1] + m[2], sum2 = m[3] + m[4], difference1 = m[1] - m[2], difference2 = m[3] - m[4];
    s[0] = m[0] + sum1 + sum2;
    s[1] = fma(vec4(2.0), difference2, difference1);
    s[2] = fma(vec4(4.0), sum2, sum1);
    s[3] = fma(vec4(8.0), difference2, difference1) + m[5];
#else
    s[0] = m[0] + m[1] + m[2];
    s[1] = m[1] - m[2] - m[3];
#endif
}

void main() {
    int patch_index = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    if (patch_index >= patches) return;
    int tile_row = patch_index / tiles_x;
    int left = (patch_index - tile_row * tiles_x) * OUTPUTS;
    int batch = tile_row / tiles_y;
    int top = (tile_row - batch * tiles_y) * OUTPUTS;

    vec4 rows[PATCH * OUTPUTS];
    UNROLL for (int r = 0; r < PATCH; r++) {
        vec4 m[PATCH], s[OUTPUTS];
        UNROLL for (int q = 0; q < PATCH; q++)
            m[q] = LOAD(x, x_offset + ((r * PATCH + q) * out_blocks + block) * patches + patch_index);
        transform(m, s);
        UNROLL for (int q = 0; q < OUTPUTS; q++) rows[r * OUTPUTS + q] = s[q];
    }
    vec4 add = LOAD(bias, bias_offset + block);
    int plane = out_height * out_width;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    UNROLL for (int q = 0; q < OUTPUTS; q++) {
        vec4 m[PATCH], s[OUTPUTS];
        UNROLL for (int r = 0; r < PATCH; r++) m[r] = rows[r * OUTPUTS + q];
        transform(m, s);
        UNROLL for (int r = 0; r < OUTPUTS; r++)
            if (top + r < out_height && left + q < out_width) {
                vec4 value = s[r] + add;
                FINISH_AT(value, y_start, residual_start, block, plane, (top + r) * out_width + left + q)
            }
    }
}
