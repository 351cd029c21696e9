#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][o][p] = bias[o] + sum over i, k of w[o][i][k] x[n][group * in + i][p * stride - pad + k * dilation] in int32, which
// wraps around; linear, three spatial axes. What lies in the padding counts as 0, so x has its zero point subtracted.
// One invocation computes one element of y; neighbouring lanes are neighbouring pixels.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int has_bias = 0;

READ_BUFFER(0, x, int);
READ_BUFFER(1, w, int);
READ_BUFFER(2, bias, int);
WRITE_BUFFER(3, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int w_offset;
    int bias_offset;
    int y_offset;
    int batches;
    int channels;       // of x
    int group_channels; // of x, per group
    int out_channels;
    int group_out;      // of y, per group
    int size[3];
    int out_size[3];
    int kernel[3];
    int stride[3];
    int dilation[3];
    int pad[3];
};

void main() {
    int area = out_size[1] * out_size[2], pixels = out_size[0] * area;
    int volume = size[0] * size[1] * size[2], taps = kernel[0] * kernel[1] * kernel[2];
    FOR_Z(n, batches) FOR_Y(o, out_channels) FOR_X(p, pixels) {
        int z = p / area, rest = p - z * area;
        int row = rest / out_size[2], column = rest - row * out_size[2];
        int z0 = z * stride[0] - pad[0], y0 = row * stride[1] - pad[1], x0 = column * stride[2] - pad[2];
        int from = x_offset + (n * channels + o / group_out * group_channels) * volume;
        int weights = w_offset + o * group_channels * taps;
        int sum = has_bias != 0 ? bias[bias_offset + o] : 0;
        for (int i = 0; i < group_channels; i++) for (int kz = 0; kz < kernel[0]; kz++) {
            int iz = z0 + kz * dilation[0];
            if (iz < 0 || iz >= size[0]) continue;
            for (int ky = 0; ky < kernel[1]; ky++) {
                int iy = y0 + ky * dilation[1];
                if (iy < 0 || iy >= size[1]) continue;
                int line = from + ((i * size[0] + iz) * size[1] + iy) * size[2];
                int tap = weights + ((i * kernel[0] + kz) * kernel[1] + ky) * kernel[2];
                for (int kx = 0; kx < kernel[2]; kx++) {
                    int ix = x0 + kx * dilation[2];
                    if (ix >= 0 && ix < size[2]) sum += w[tap + kx] * x[line + ix];
                }
            }
        }
        y[y_offset + (n * out_channels + o) * pixels + p] = sum;
    }
}
