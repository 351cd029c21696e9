#version 450
#extension GL_GOOGLE_include_directive : require
// y = condition ? a : b element by element with broadcasting; linear. Elements are copied as 32 bits, whatever they are.
// Each operand is a strided array of 6 dimensions `size`; a stride of 0 broadcasts. y is dense.
// The last `lane_dimensions` dimensions run over the lanes, the others over workgroups. One invocation computes one
// element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int lane_dimensions = 1;

READ_BUFFER(0, condition, int);
READ_BUFFER(1, a, int);
READ_BUFFER(2, b, int);
WRITE_BUFFER(3, y, int);
layout(push_constant) uniform Push {
    int condition_offset;
    int a_offset;
    int b_offset;
    int y_offset;
    int size[6];
    int condition_stride[6];
    int a_stride[6];
    int b_stride[6];
};

void main() {
    int rows = lane_dimensions == 1 ? size[3] * size[4] : lane_dimensions == 2 ? size[3] : 1;
    int width = lane_dimensions == 1 ? size[5] : lane_dimensions == 2 ? size[4] * size[5] : size[3] * size[4] * size[5];
    FOR_Z(slab, size[0] * size[1] * size[2]) {
        int i2 = slab % size[2], i01 = slab / size[2];
        int i1 = i01 % size[1], i0 = i01 / size[1];
        FOR_Y(row, rows) FOR_X(lane, width) {
            int inner = row * width + lane; // index in the last three dimensions
            int i34 = inner / size[5], i5 = inner - i34 * size[5];
            int i3 = i34 / size[4], i4 = i34 - i3 * size[4];
            int index[6] = int[](i0, i1, i2, i3, i4, i5);
            int c = condition_offset, i = a_offset, j = b_offset;
            UNROLL for (int d = 0; d < 6; d++) {
                c += index[d] * condition_stride[d];
                i += index[d] * a_stride[d];
                j += index[d] * b_stride[d];
            }
            y[y_offset + (slab * rows + row) * width + lane] = condition[c] != 0 ? a[i] : b[j];
        }
    }
}
