#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; size = f4, f2)
#include "tensor.glsl"
// Winograd F(m x m, 3x3) for m = 4 or 2, first of three steps: V = B^T d B for every patch d of the input (Lavin & Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2015). Patches of (m + 2)^2 lie m apart, the first at
// (-pad_top, -pad_left).
// x: C4. y: [element of the patch][channel block][patch of all batches] of vec4. One invocation: one patch of four
// channels. Grid: x patches / local_size, y channel blocks.
layout(local_size_x_id = 0) in;
#if defined(SIZE_F4)
const int OUTPUTS = 4;
#else
const int OUTPUTS = 2;
#endif
const int PATCH = OUTPUTS + 2;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, y_offset;
    int height, width, pad_top, pad_left;
    int tiles_y, tiles_x, patches; // patches of one map, and of all batches
    int in_blocks;
};

// B^T times the values of a row or a column
void transform(vec4 d[PATCH], out vec4 e[PATCH]) {
#if defined(SIZE_F4)
    vec4 four = vec4(4.0), even = fma(-four, d[2], d[4]), odd = fma(-four, d[1], d[3]);
    vec4 even2 = d[4] - d[2], odd2 = 2.0 * (d[3] - d[1]);
    e[0] = fma(four, d[0], fma(vec4(-5.0), d[2], d[4]));
    e[1] = even + odd;
    e[2] = even - odd;
    e[3] = even2 + odd2;
    e[4] = even2 - odd2;
    e[5] = fma(four, d[1], fma(vec4(-5.0), d[3], d[5]));
#else
    e[0] = d[0] - d[2];
    e[1] = d[1] + d[2];
    e[2] = d[2] - d[1];
    e[3] = d[1] - d[3];
#endif
}

void main() {
    int patch_index = int(gl_GlobalInvocationID.x);
    int block = int(gl_WorkGroupID.y);
    if (patch_index >= patches) return;
    int row = patch_index / tiles_x;
    int left = (patch_index - row * tiles_x) * OUTPUTS - pad_left;
    int batch = row / tiles_y;
    int top = (row - batch * tiles_y) * OUTPUTS - pad_top;
    int plane = x_offset + batch * x_batch + block * height * width;

    bool inside[PATCH];
    int column[PATCH];
    UNROLL for (int q = 0; q < PATCH; q++) {
        inside[q] = uint(left + q) < uint(width);
        column[q] = clamp(left + q, 0, width - 1);
    }
    vec4 rows[PATCH * PATCH];
    UNROLL for (int r = 0; r < PATCH; r++) {
        bool row_inside = uint(top + r) < uint(height);
        int start = plane + clamp(top + r, 0, height - 1) * width;
        vec4 d[PATCH], e[PATCH];
        UNROLL for (int q = 0; q < PATCH; q++) {
            vec4 texel = LOAD(x, start + column[q]);
            d[q] = row_inside && inside[q] ? texel : vec4(0.0);
        }
        transform(d, e);
        UNROLL for (int q = 0; q < PATCH; q++) rows[r * PATCH + q] = e[q];
    }
    UNROLL for (int q = 0; q < PATCH; q++) {
        vec4 d[PATCH], e[PATCH];
        UNROLL for (int r = 0; r < PATCH; r++) d[r] = rows[r * PATCH + q];
        transform(d, e);
        UNROLL for (int r = 0; r < PATCH; r++)
            y[y_offset + ((r * PATCH + q) * in_blocks + block) * patches + patch_index] = e[r];
    }
}
