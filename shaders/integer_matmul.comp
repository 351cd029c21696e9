#version 450
#extension GL_GOOGLE_include_directive : require
// y[batch][m][n] = sum over k of a[m][k] b[k][n] in int32, which wraps around; linear, row-major matrices whose batches
// lie `a_step` and `b_step` apart per batch dimension.
// One invocation computes ROWS rows of one column; neighbouring lanes are neighbouring columns.
#include "tensor.glsl"
#include "grid.glsl"

#define ROWS 4

READ_BUFFER(0, a, int);
READ_BUFFER(1, b, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int a_offset;
    int b_offset;
    int y_offset;
    int rows;
    int columns;
    int depth;
    int batch_size[3];
    int a_step[3];
    int b_step[3];
};

void main() {
    FOR_Z(batch, batch_size[0] * batch_size[1] * batch_size[2]) {
        int i2 = batch % batch_size[2], i01 = batch / batch_size[2];
        int i1 = i01 % batch_size[1], i0 = i01 / batch_size[1];
        int a_start = a_offset + i0 * a_step[0] + i1 * a_step[1] + i2 * a_step[2];
        int b_start = b_offset + i0 * b_step[0] + i1 * b_step[1] + i2 * b_step[2];
        FOR_Y(tile, (rows + ROWS - 1) / ROWS) FOR_X(n, columns) {
            int row = tile * ROWS;
            int at[ROWS];
            int sum[ROWS];
            UNROLL for (int r = 0; r < ROWS; r++) {
                at[r] = a_start + min(row + r, rows - 1) * depth;
                sum[r] = 0;
            }
            for (int k = 0; k < depth; k++) {
                int v = b[b_start + k * columns + n];
                UNROLL for (int r = 0; r < ROWS; r++) sum[r] += a[at[r] + k] * v;
            }
            UNROLL for (int r = 0; r < ROWS; r++)
                if (row + r < rows) y[y_offset + (batch * rows + row + r) * columns + n] = sum[r];
        }
    }
}
