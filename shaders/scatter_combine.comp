#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(dtype = int, float)
// A step of combining the updates of each target, which lie side by side: y[p] = x[p - distance] and x[p] combined where
// both belong to one target, else x[p]. After steps of distance 1, 2, 4... the last of each target's is all of them
// together (Hillis & Steele, "Data Parallel Algorithms", 1986). Rows of `inner` elements; linear. One invocation
// computes one element.
#include "tensor.glsl"
#include "grid.glsl"
#include "scatter_reductions.glsl"

layout(constant_id = 2) const bool inner_is_one = false;

READ_BUFFER(0, keys, int);
READ_BUFFER(1, x, ELEMENT);
WRITE_BUFFER(2, y, ELEMENT);
layout(push_constant) uniform Push {
    int keys_offset;
    int x_offset;
    int y_offset;
    int updates;
    int inner;
    int distance;
};

void main() {
    FOR_X(e, updates * inner) {
        int p = inner_is_one ? e : e / inner;
        ELEMENT value = x[x_offset + e];
        if (p >= distance && keys[keys_offset + p - distance] == keys[keys_offset + p])
            value = combine(x[x_offset + e - distance * inner], value);
        y[y_offset + e] = value;
    }
}
