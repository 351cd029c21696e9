#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "convolution.glsl"
// Winograd F(4x4, 3x3), last of three steps: A^T m A for every patch, then bias, activation and residual.
// x: [36 elements][output channel block][patch of all batches] of vec4; y, residual: C4. One invocation: 4x4 outputs of
// four channels. Grid: x patches / local_size, y channel blocks.
layout(local_size_x_id = 0) in;

READ_VEC4(0, x);
READ_VEC4(1, bias);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, bias_offset, residual_offset, residual_batch, y_offset, y_batch;
    int out_height, out_width;
    int tiles_y, tiles_x, patches; // patches of one map, and of all batches
    int out_blocks;
    int channels;
    float alpha, beta;
};

// one row of A^T times six values
#define TRANSFORM(m0, m1, m2, m3, m4, m5, s0, s1, s2, s3)                                                              \
    s0 = m0 + m1 + m2 + m3 + m4;                                                                                       \
    s1 = m1 - m2 + 2.0 * m3 - 2.0 * m4;                                                                                \
    s2 = m1 + m2 + 4.0 * m3 + 4.0 * m4;                                                                                \
    s3 = m1 - m2 + 8.0 * m3 - 8.0 * m4 + m5;

void main() {
    int patch_index = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    if (patch_index >= patches) return;
    int tile_row = patch_index / tiles_x;
    int left = (patch_index - tile_row * tiles_x) * 4;
    int batch = tile_row / tiles_y;
    int top = (tile_row - batch * tiles_y) * 4;

    vec4 e[24];
    UNROLL for (int r = 0; r < 6; r++) {
        vec4 m[6];
        UNROLL for (int q = 0; q < 6; q++)
            m[q] = LOAD(x, x_offset + ((r * 6 + q) * out_blocks + block) * patches + patch_index);
        TRANSFORM(m[0], m[1], m[2], m[3], m[4], m[5], e[r * 4], e[r * 4 + 1], e[r * 4 + 2], e[r * 4 + 3])
    }
    vec4 add = LOAD(bias, bias_offset + block);
    int place = (block * out_height + top) * out_width + left;
    int y_index = y_offset + batch * y_batch + place;
    int residual_index = residual_offset + batch * residual_batch + place;
    UNROLL for (int j = 0; j < 4; j++) {
        vec4 s[4];
        TRANSFORM(e[j], e[4 + j], e[8 + j], e[12 + j], e[16 + j], e[20 + j], s[0], s[1], s[2], s[3])
        UNROLL for (int q = 0; q < 4; q++)
            if (top + q < out_height && left + j < out_width) {
                vec4 value = s[q] + add;
                FINISH(value, y_index + q * out_width + j, residual_index + q * out_width + j, block)
            }
    }
}
