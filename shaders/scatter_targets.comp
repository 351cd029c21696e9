#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(index = element, tuple)
// Where each update of a scatter goes: its target is a slice of the result (index = tuple, ScatterND) or an element of it
// (index = element, ScatterElements; `size` are the indices' dimensions, `stride` the result's strides, 0 along the
// axis). One invocation finds the target of one update.
// winners: targets[target] = the last update that goes there, for targets set to -1 before. Else targets[u] = target.
// Indices come from the model's data: negative ones count from the end, what lies outside its axis is clamped to it.
#include "tensor.glsl"
#include "grid.glsl"
#include "indexing.glsl"

#define TUPLE 8

layout(constant_id = 1) const bool winners = false;
layout(constant_id = 2) const int depth = 1; // the tuple's length; the dimensions of an element's strides

READ_BUFFER(0, indices, int);
UPDATE_BUFFER(1, targets, int);
layout(push_constant) uniform Push {
    int indices_offset;
    int targets_offset;
    int updates;
    int axis_size;
    int axis_stride;
    int size[TUPLE];
    int stride[TUPLE];
};

int target_of(int u) {
#if defined(INDEX_TUPLE)
    int target = 0;
    UNROLL for (int d = 0; d < TUPLE; d++)
        if (d < depth) target += wrap_index(indices[indices_offset + u * depth + d], size[d]) * stride[d];
    return target;
#else
    int element_size[STRIDED_DIMS], element_stride[STRIDED_DIMS];
    UNROLL for (int d = 0; d < STRIDED_DIMS; d++) {
        element_size[d] = size[d];
        element_stride[d] = stride[d];
    }
    int along = wrap_index(indices[indices_offset + u], axis_size);
    return strided_place(u, depth, element_size, element_stride) + along * axis_stride;
#endif
}

void main() {
    FOR_X(u, updates) {
        int target = target_of(u);
        if (winners) atomicMax(targets[targets_offset + target], u);
        else targets[targets_offset + u] = target;
    }
}
