#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
// Winograd F(4x4, 3x3), first of three steps: V = B^T d B for every 6x6 patch d of the input (Lavin & Gray, "Fast
// Algorithms for Convolutional Neural Networks", 2015). Patches lie 4 apart, the first at (-pad_top, -pad_left).
// x: C4. y: [36 elements of the patch][channel block][patch of all batches] of vec4. One invocation: one patch of four
// channels. Grid: x patches / local_size, y channel blocks.
layout(local_size_x_id = 0) in;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, y_offset;
    int height, width, pad_top, pad_left;
    int tiles_y, tiles_x, patches; // patches of one map, and of all batches
    int in_blocks;
};

// one row of B^T times six values
#define TRANSFORM(d0, d1, d2, d3, d4, d5, e0, e1, e2, e3, e4, e5)                                                      \
    e0 = 4.0 * d0 - 5.0 * d2 + d4;                                                                                     \
    e1 = -4.0 * d1 - 4.0 * d2 + d3 + d4;                                                                               \
    e2 = 4.0 * d1 - 4.0 * d2 - d3 + d4;                                                                                \
    e3 = -2.0 * d1 - d2 + 2.0 * d3 + d4;                                                                               \
    e4 = 2.0 * d1 - d2 - 2.0 * d3 + d4;                                                                                \
    e5 = 4.0 * d1 - 5.0 * d3 + d5;

void main() {
    int patch_index = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    if (patch_index >= patches) return;
    int row = patch_index / tiles_x;
    int left = (patch_index - row * tiles_x) * 4 - pad_left;
    int batch = row / tiles_y;
    int top = (row - batch * tiles_y) * 4 - pad_top;
    int plane = x_offset + batch * x_batch + block * height * width;

    bool inside[6];
    int column[6];
    UNROLL for (int q = 0; q < 6; q++) {
        inside[q] = uint(left + q) < uint(width);
        column[q] = clamp(left + q, 0, width - 1);
    }
    vec4 e[36];
    UNROLL for (int r = 0; r < 6; r++) {
        bool row_inside = uint(top + r) < uint(height);
        int start = plane + clamp(top + r, 0, height - 1) * width;
        vec4 d[6];
        UNROLL for (int q = 0; q < 6; q++) {
            vec4 texel = LOAD(x, start + column[q]);
            d[q] = row_inside && inside[q] ? texel : vec4(0.0);
        }
        TRANSFORM(d[0], d[1], d[2], d[3], d[4], d[5], e[r * 6], e[r * 6 + 1], e[r * 6 + 2], e[r * 6 + 3], e[r * 6 + 4],
                  e[r * 6 + 5])
    }
    UNROLL for (int j = 0; j < 6; j++) {
        vec4 f[6];
        TRANSFORM(e[j], e[6 + j], e[12 + j], e[18 + j], e[24 + j], e[30 + j], f[0], f[1], f[2], f[3], f[4], f[5])
        UNROLL for (int r = 0; r < 6; r++) y[y_offset + ((r * 6 + j) * in_blocks + block) * patches + patch_index] = f[r];
    }
}
