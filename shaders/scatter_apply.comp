#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(dtype = int, float)
// y[t, i] = x[t, i] with the updates[u, i] of all u that go to target t: replaced by the last of them, or combined with
// one after the other, in their order. Linear. One invocation computes one element.
// chain[t] is that last update; or, with a reduction, where the updates of t begin in the list behind it: `updates_count`
// complements of targets in ascending order of the targets, then the update that each belongs to. -1: none.
#include "tensor.glsl"
#include "grid.glsl"

#define REDUCE_NONE 0
#define REDUCE_ADD 1
#define REDUCE_MUL 2
#define REDUCE_MAX 3
#define REDUCE_MIN 4

layout(constant_id = 1) const int reduction = REDUCE_NONE;
layout(constant_id = 2) const bool inner_is_one = false;

READ_BUFFER(0, x, ELEMENT);
READ_BUFFER(1, chain, int);
READ_BUFFER(2, updates, ELEMENT);
WRITE_BUFFER(3, y, ELEMENT);
layout(push_constant) uniform Push {
    int x_offset;
    int chain_offset;
    int updates_offset;
    int y_offset;
    int targets;
    int updates_count;
    int inner;
};

bool is_nan(ELEMENT v) {
#if defined(DTYPE_INT)
    return false;
#else
    return isnan(v);
#endif
}

ELEMENT combine(ELEMENT a, ELEMENT b) {
    if (reduction == REDUCE_ADD) return a + b;
    if (reduction == REDUCE_MUL) return a * b;
    // a NaN stays, which max and min do not promise
    if (reduction == REDUCE_MAX) return a > b || is_nan(a) ? a : b;
    return a < b || is_nan(a) ? a : b;
}

void main() {
    FOR_X(e, targets * inner) {
        int t = inner_is_one ? e : e / inner;
        int i = inner_is_one ? 0 : e - t * inner;
        ELEMENT value = x[x_offset + e];
        int place = chain[chain_offset + t];
        if (reduction == REDUCE_NONE) {
            if (place >= 0) value = updates[updates_offset + place * inner + i];
        } else if (place >= 0) {
            int keys = chain_offset + targets, order = keys + updates_count;
            for (; place < updates_count && chain[keys + place] == ~t; place++)
                value = combine(value, updates[updates_offset + chain[order + place] * inner + i]);
        }
        y[y_offset + e] = value;
    }
}
