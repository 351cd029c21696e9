#version 450
#extension GL_GOOGLE_include_directive : require
// values[o, i, c], indices[o, i, c] = the element i in order of row (o, c) of x, and where it lies in that row: `order`
// holds the latter for each row, `kept` of them. Linear; elements are moved as bits. One invocation moves one.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, int);
READ_BUFFER(1, order, int);
WRITE_BUFFER(2, values, int);
WRITE_BUFFER(3, indices, int);
layout(push_constant) uniform Push {
    int x_offset;
    int order_offset;
    int values_offset;
    int indices_offset;
    int outer;
    int length;
    int inner;
    int kept;
};

void main() {
    FOR_Y(o, outer) FOR_X(e, kept * inner) {
        int i = e / inner, c = e - i * inner;
        int index = order[order_offset + (o * inner + c) * kept + i];
        values[values_offset + o * kept * inner + e] = x[x_offset + (o * length + index) * inner + c];
        indices[indices_offset + o * kept * inner + e] = index;
    }
}
