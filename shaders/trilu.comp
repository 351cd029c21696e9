#version 450
#extension GL_GOOGLE_include_directive : require
// y[m, r, c] = x[m, r, c] where c - r >= k (upper), or c - r <= k (lower), else 0. Linear; elements are moved as bits.
// One invocation moves one element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool upper = true;

READ_BUFFER(0, x, int);
READ_BUFFER(1, diagonal, int); // k
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int diagonal_offset;
    int y_offset;
    int matrices;
    int height;
    int width;
};

void main() {
    int k = diagonal[diagonal_offset];
    FOR_Z(m, matrices) FOR_Y(r, height) FOR_X(c, width) {
        int at = (m * height + r) * width + c;
        bool inside = upper ? c - r >= k : c - r <= k;
        y[y_offset + at] = inside ? x[x_offset + at] : 0;
    }
}
