#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(dtype = int, float)
// y[t, i] = x[t, i] combined with updates[last[t], i], or without a reduction replaced by it; x[t, i] where last[t] is
// -1. Linear. One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"
#include "scatter_reductions.glsl"

layout(constant_id = 2) const bool inner_is_one = false;

READ_BUFFER(0, x, ELEMENT);
READ_BUFFER(1, last, int);
READ_BUFFER(2, updates, ELEMENT);
WRITE_BUFFER(3, y, ELEMENT);
layout(push_constant) uniform Push {
    int x_offset;
    int last_offset;
    int updates_offset;
    int y_offset;
    int targets;
    int inner;
};

void main() {
    FOR_X(e, targets * inner) {
        int t = inner_is_one ? e : e / inner;
        int from = last[last_offset + t];
        ELEMENT value = x[x_offset + e];
        y[y_offset + e] = from < 0 ? value : combine(value, updates[updates_offset + from * inner + e - t * inner]);
    }
}
