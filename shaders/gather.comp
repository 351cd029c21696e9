#version 450
#extension GL_GOOGLE_include_directive : require
// y[outer][k][inner] = x[outer][indices[k]][inner]; a negative index counts from the end. Linear tensors; elements are
// moved as bits, whatever their type. One invocation moves one element.
// Indices come from the model's data: whatever lies outside the axis is clamped to it.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool inner_is_one = false;

READ_BUFFER(0, x, int);
READ_BUFFER(1, indices, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int indices_offset;
    int y_offset;
    int outer;
    int axis_size;
    int count;
    int inner;
};

void main() {
    FOR_Y(o, outer) FOR_X(i, count * inner) {
        ivec2 place = inner_is_one ? ivec2(i, 0) : divide(i, inner);
        int k = place.x;
        int index = indices[indices_offset + k];
        if (index < 0) index += axis_size;
        index = clamp(index, 0, axis_size - 1);
        int from = x_offset + (o * axis_size + index) * inner + place.y;
        y[y_offset + o * count * inner + i] = x[from];
    }
}
