#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][p] = theta[n] * (position of pixel p, 1) for maps of two or three axes: the grids that GridSample reads.
// theta: linear (N, AXES, AXES + 1); y: linear (N, pixels, AXES). Positions span [-1, 1], the last axis first, from the
// first pixel's centre to the last's (ALIGNED; a single one is at 0), or from edge to edge. One invocation: one pixel of one grid.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int AXES = 2;
layout(constant_id = 2) const bool ALIGNED = false;

READ_BUFFER(0, theta, float);
WRITE_BUFFER(1, y, float);
layout(push_constant) uniform Push {
    int theta_offset, y_offset;
    int batches;
    int size[3];
};

float position(int i, int count) {
    if (ALIGNED) return float(2 * i - (count - 1)) / float(max(count - 1, 1));
    return float(2 * i + 1 - count) / float(count);
}

void main() {
    int pixels = size[0] * size[1] * size[2];
    FOR_Y(n, batches) FOR_X(p, pixels) {
        int row = p / size[2];
        int slice = row / size[1];
        float at[3] = float[3](position(p - row * size[2], size[2]), position(row - slice * size[1], size[1]),
                               AXES == 3 ? position(slice, size[0]) : 0.0);
        UNROLL for (int i = 0; i < AXES; i++) {
            int from = theta_offset + (n * AXES + i) * (AXES + 1);
            float total = theta[from + AXES];
            UNROLL for (int k = 0; k < AXES; k++) total += theta[from + k] * at[k];
            y[y_offset + (n * pixels + p) * AXES + i] = total;
        }
    }
}
