#version 450
#extension GL_GOOGLE_include_directive : require
// y[b, t, :] = x[b, indices[b, t, 0], ..., indices[b, t, depth - 1], :]: slices of `inner` elements, picked by tuples of
// indices. Linear; elements are moved as bits. One invocation moves one element; the lanes run over a slice, or with
// `lanes_over_tuples` over tuples, each lane moving whole slices.
// Indices come from the model's data: negative ones count from the end, what lies outside its axis is clamped to it.
#include "tensor.glsl"
#include "grid.glsl"
#include "indexing.glsl"

#define TUPLE 8

layout(constant_id = 1) const int depth = 1;
layout(constant_id = 2) const bool lanes_over_tuples = false;

READ_BUFFER(0, x, int);
READ_BUFFER(1, indices, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int indices_offset;
    int y_offset;
    int tuples;      // in all
    int batch_tuples; // in one batch
    int batch_step;  // elements of x in one batch
    int inner;
    int size[TUPLE];
    int stride[TUPLE];
};

int source_of(int t) {
    int from = x_offset + t / batch_tuples * batch_step;
    UNROLL for (int d = 0; d < TUPLE; d++)
        if (d < depth) from += wrap_index(indices[indices_offset + t * depth + d], size[d]) * stride[d];
    return from;
}

void main() {
    if (lanes_over_tuples) {
        FOR_X(t, tuples) {
            int from = source_of(t);
            for (int i = 0; i < inner; i++) y[y_offset + t * inner + i] = x[from + i];
        }
    } else {
        FOR_Y(t, tuples) {
            int from = source_of(t);
            FOR_X(i, inner) y[y_offset + t * inner + i] = x[from + i];
        }
    }
}
