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
// whether y has more than one slice in depth
layout(constant_id = 7) const bool deep = false;
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

// Windows up to this size are unrolled: what is left as a loop over masked lanes costs a CPU driver several taps. Rows of
// larger ones stay a loop: lavapipe would unroll some (5x5, 3x3x3) and take twice as long, having too few registers.
const int UNROLLED_TAPS = 16;
#define LOOP [[dont_unroll]]

// how many taps of the window that starts at `start`, `step` apart, lie in [low, high)
float taps_inside(int start, int low, int high, int kernel, int step) {
    // (in float: halves keep the quotients away from whole numbers, so that rounding cannot matter)
    float inverse = 1.0 / float(step);
    float first = max(ceil((float(low - start) - 0.5) * inverse), 0.0);
    float end = min(ceil((float(high - start) - 0.5) * inverse), float(kernel));
    return max(end - first, 0.0);
}

vec4 add_tap(vec4 total, int base, int iz, int iy, int ix) {
    if (!padded) {
        vec4 v = LOAD(x, base + (iz * in_size[1] + iy) * in_size[2] + ix);
        return kind == MAXIMUM ? max(total, v) : total + v;
    }
    // a tap outside reads some element inside, which is then left out: no lane has to branch
    ivec3 at = ivec3(ix, iy, iz);
    ivec3 size = ivec3(in_size[2], in_size[1], in_size[0]);
    ivec3 near = clamp(at, ivec3(0), size - 1);
    vec4 v = LOAD(x, base + (near.z * size.y + near.y) * size.x + near.x);
    if (kind == MAXIMUM) return at == near ? max(total, v) : total;
    return total + (at == near ? v : vec4(0.0));
}

// `total` with the taps of one slice in depth
vec4 add_slice(vec4 total, int base, int iz, int y0, int x0) {
    if (kernel_h * kernel_w <= UNROLLED_TAPS) {
        UNROLL for (int ky = 0; ky < kernel_h; ky++) UNROLL for (int kx = 0; kx < kernel_w; kx++)
            total = add_tap(total, base, iz, y0 + ky * dilation[1], x0 + kx * dilation[2]);
    } else {
        LOOP for (int ky = 0; ky < kernel_h; ky++) for (int kx = 0; kx < kernel_w; kx++)
            total = add_tap(total, base, iz, y0 + ky * dilation[1], x0 + kx * dilation[2]);
    }
    return total;
}

vec4 window(int base, int z0, int y0, int x0) {
    vec4 total = kind == MAXIMUM ? vec4(uintBitsToFloat(0xff800000u)) : vec4(0.0);
    if (kernel_d == 1) total = add_slice(total, base, z0, y0, x0);
    else LOOP for (int kz = 0; kz < kernel_d; kz++) total = add_slice(total, base, z0 + kz * dilation[0], y0, x0);
    if (kind == MAXIMUM) return total;
    if (!padded) return total / float(kernel_d * kernel_h * kernel_w);
    float count = 1.0;
    UNROLL for (int axis = 0; axis < 3; axis++) {
        int kernel = axis == 0 ? kernel_d : axis == 1 ? kernel_h : kernel_w;
        int start = axis == 0 ? z0 : axis == 1 ? y0 : x0;
        bool margin = kind == AVERAGE_WITH_PADDING;
        int low = margin ? -pad_begin[axis] : 0;
        int high = in_size[axis] + (margin ? pad_end[axis] : 0);
        if (kernel > 1 || margin) count *= taps_inside(start, low, high, kernel, dilation[axis]);
    }
    return total / max(count, 1.0);
}

void main() {
    int blocks = (channels + 3) / 4;
    int groups = (out_size[1] + rows - 1) / rows;
    FOR_Z(n, batches) FOR_Y(block, blocks) {
        int base = x_offset + n * x_batch + block * in_size[0] * in_size[1] * in_size[2];
        int to = y_offset + n * y_batch + block * out_size[0] * out_size[1] * out_size[2];
        FOR_X(i, out_size[0] * groups * out_size[2]) {
            ivec2 row_column = divide(i, out_size[2]);
            ivec2 depth_row = deep ? divide(row_column.x, groups) : ivec2(0, row_column.x);
            int ox = row_column.y;
            int oz = depth_row.x;
            int oy = depth_row.y * rows;
            int z0 = oz * stride[0] - pad_begin[0];
            int x0 = ox * stride[2] - pad_begin[2];
            UNROLL for (int r = 0; r < rows; r++) if (oy + r < out_size[1]) {
                vec4 v = window(base, z0, (oy + r) * stride[1] - pad_begin[1], x0);
                // a window without any tap inside has no maximum: its padding lanes must be zero all the same
                if (kind == MAXIMUM && padded) v = keep_channels(v, block, channels);
                y[to + (oz * out_size[1] + oy + r) * out_size[2] + ox] = v;
            }
        }
    }
}
