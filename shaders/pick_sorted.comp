#version 450
#extension GL_GOOGLE_include_directive : require
// values[o, i, c], indices[o, i, c] = the element i in order of row (o, c) of x, and where it lies in that row: `order`
// holds the latter for each row, `kept` of them. Linear; elements are moved as bits. One invocation moves one.
// picked: x holds what radix_collect.comp wrote instead, `kept` indices and then elements per row, which `order` refers to.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool picked = false;

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
        int row = o * inner + c;
        int index = order[order_offset + row * kept + i];
        int from = x_offset + (picked ? (outer * inner + row) * kept + index : (o * length + index) * inner + c);
        values[values_offset + o * kept * inner + e] = x[from];
        indices[indices_offset + o * kept * inner + e] = picked ? x[x_offset + row * kept + index] : index;
    }
}
