#version 450
#extension GL_GOOGLE_include_directive : require
// y[i] = x[i, but along the axis indices[i]]; a negative index counts from the end. Linear; y and indices have one shape
// (`size`), x its own strides (0 along the axis). Elements are moved as bits. One invocation moves one element.
// Indices come from the model's data: whatever lies outside the axis is clamped to it.
#include "tensor.glsl"
#include "grid.glsl"
#include "indexing.glsl"

layout(constant_id = 1) const int dims = STRIDED_DIMS;

READ_BUFFER(0, x, int);
READ_BUFFER(1, indices, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int indices_offset;
    int y_offset;
    int count;
    int axis_size;
    int axis_stride;
    int size[STRIDED_DIMS];
    int x_stride[STRIDED_DIMS];
};

void main() {
    FOR_X(i, count) {
        int along = wrap_index(indices[indices_offset + i], axis_size);
        y[y_offset + i] = x[x_offset + strided_place(i, dims, size, x_stride) + along * axis_stride];
    }
}
