#version 450
#extension GL_GOOGLE_include_directive : require
// y[m][p] = sum of x[m][k][q] over the taps k and windows q with q*stride - pad + k*dilation = p, for one to three axes:
// overlapping patches added up into an image. x: linear (maps, taps, windows); y: linear (maps, pixels).
// One invocation: one pixel; it gathers from the windows that hold it.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, float);
layout(push_constant) uniform Push {
    int x_offset, y_offset;
    int maps;
    int image[3], windows[3], kernel[3], stride[3], dilation[3], pad[3];
};

// the window of an axis whose tap k lies on a pixel; -1 for none
int window(int axis, int pixel, int k) {
    int t = pixel + pad[axis] - k * dilation[axis];
    int q = t / stride[axis];
    return t >= 0 && q * stride[axis] == t && q < windows[axis] ? q : -1;
}

void main() {
    int pixels = image[0] * image[1] * image[2];
    int count = windows[0] * windows[1] * windows[2];
    int taps = kernel[0] * kernel[1] * kernel[2];
    FOR_Y(m, maps) FOR_X(p, pixels) {
        int row = p / image[2];
        int slice = row / image[1];
        float total = 0.0;
        for (int kz = 0; kz < kernel[0]; kz++) {
            int qz = window(0, slice, kz);
            if (qz < 0) continue;
            for (int ky = 0; ky < kernel[1]; ky++) {
                int qy = window(1, row - slice * image[1], ky);
                if (qy < 0) continue;
                for (int kx = 0; kx < kernel[2]; kx++) {
                    int qx = window(2, p - row * image[2], kx);
                    int tap = (kz * kernel[1] + ky) * kernel[2] + kx;
                    if (qx >= 0) total += x[x_offset + (m * taps + tap) * count + (qz * windows[1] + qy) * windows[2] + qx];
                }
            }
        }
        y[y_offset + m * pixels + p] = total;
    }
}
