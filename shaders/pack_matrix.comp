#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][r][c] = x at n * batch_stride + r * row_stride + c * column_stride: a matrix (or its transpose) with rows of
// whole vec4s, and zeros in what pads rows and columns. One invocation computes one vec4.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, float);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int batches;
    int batch_stride;
    int rows;
    int padded_rows;
    int columns;
    int row_stride;
    int column_stride;
};

void main() {
    int columns4 = (columns + 3) / 4;
    FOR_Z(n, batches) FOR_Y(r, padded_rows) FOR_X(c4, columns4) {
        int at = x_offset + n * batch_stride + r * row_stride + c4 * 4 * column_stride;
        int left = r < rows ? columns - c4 * 4 : 0;
        vec4 v = vec4(0.0);
        if (left > 0) v.x = x[at];
        if (left > 1) v.y = x[at + column_stride];
        if (left > 2) v.z = x[at + 2 * column_stride];
        if (left > 3) v.w = x[at + 3 * column_stride];
        y[y_offset + (n * padded_rows + r) * columns4 + c4] = v;
    }
}
