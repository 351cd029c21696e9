#version 450
#extension GL_GOOGLE_include_directive : require
// y[o] = max or mean over k of x[o * stride - pad + k * dilation], for one to three spatial dimensions.
// C4: x is [N][C/4][D*H][W] of vec4, y likewise. One invocation computes `rows` outputs below each other (one vec4
// each). Taps outside the input are left out; a mean divides by the taps inside the input, or inside input and
// declared padding.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

#define MAXIMUM 0
#define AVERAGE 1
#define AVERAGE_WITH_PADDING 2

layout(constant_id = 1) const int kind = MAXIMUM;
layout(constant_id = 2) const int kernel_d = 1;
layout(constant_id = 3) const int kernel_h = 2;
layout(constant_id = 4) const int kernel_w = 2;
layout(constant_id = 5) const int rows = 1;
// false when every tap of every window is inside the input
layout(constant_id = 6) const bool padded = true;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int channels;
    int in_size[3];
    int out_size[3];
    int stride[3];
    int dilation[3];
    int pad_begin[3];
    int pad_end[3];
};

// how many taps of the window that starts at `start` lie below `limit`; those below 0 count only as padding
float taps_inside(int start, int limit, int kernel, int step) {
    int count = 0;
    for (int k = 0; k < kernel; k++) {
        int at = start + k * step;
        if ((at >= 0 || kind == AVERAGE_WITH_PADDING) && at < limit) count++;
    }
    return float(count);
}

vec4 window(int base, int z0, int y0, int x0) {
    vec4 total = kind == MAXIMUM ? vec4(uintBitsToFloat(0xff800000u)) : vec4(0.0);
    for (int kz = 0; kz < kernel_d; kz++) {
        int iz = z0 + kz * dilation[0];
        for (int ky = 0; ky < kernel_h; ky++) {
            int iy = y0 + ky * dilation[1];
            bool row_inside = !padded || (iz >= 0 && iz < in_size[0] && iy >= 0 && iy < in_size[1]);
            if (!row_inside) continue;
            int row = base + (iz * in_size[1] + iy) * in_size[2];
            for (int kx = 0; kx < kernel_w; kx++) {
                int ix = x0 + kx * dilation[2];
                vec4 v = LOAD(x, row + (padded ? clamp(ix, 0, in_size[2] - 1) : ix));
                bool inside = !padded || (ix >= 0 && ix < in_size[2]);
                if (kind == MAXIMUM) total = inside ? max(total, v) : total;
                else total += inside ? v : vec4(0.0);
            }
        }
    }
    if (kind == MAXIMUM) return total;
    if (!padded) return total / float(kernel_d * kernel_h * kernel_w);
    bool with_padding = kind == AVERAGE_WITH_PADDING;
    float count = taps_inside(z0, in_size[0] + (with_padding ? pad_end[0] : 0), kernel_d, dilation[0])
        * taps_inside(y0, in_size[1] + (with_padding ? pad_end[1] : 0), kernel_h, dilation[1])
        * taps_inside(x0, in_size[2] + (with_padding ? pad_end[2] : 0), kernel_w, dilation[2]);
    return total / max(count, 1.0);
}

void main() {
    int blocks = (channels + 3) / 4;
    int groups = (out_size[1] + rows - 1) / rows;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int base = x_offset + n * x_batch + block * in_size[0] * in_size[1] * in_size[2];
        int to = y_offset + n * y_batch + block * out_size[0] * out_size[1] * out_size[2];
        FOR_X(i, out_size[0] * groups * out_size[2]) {
            int row = i / out_size[2];
            int ox = i - row * out_size[2];
            int oz = out_size[0] == 1 ? 0 : row / groups;
            int oy = (row - oz * groups) * rows;
            int z0 = oz * stride[0] - pad_begin[0];
            int x0 = ox * stride[2] - pad_begin[2];
            for (int r = 0; r < rows; r++) {
                if (oy + r >= out_size[1]) break;
                vec4 v = window(base, z0, (oy + r) * stride[1] - pad_begin[1], x0);
                // a window without any tap inside has no maximum: its padding lanes must be zero all the same
                if (kind == MAXIMUM && padded) v = keep_channels(v, block, channels);
                y[to + (oz * out_size[1] + oy + r) * out_size[2] + ox] = v;
            }
        }
    }
}
