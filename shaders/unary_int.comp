#version 450
#extension GL_GOOGLE_include_directive : require
// y = f(x) element by element on integers, and on bool (0 or 1); linear. `kind` as in vkconv/ops/unary_int.py.
// One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"

#define KIND_ABS 0
#define KIND_NEG 1
#define KIND_SIGN 2
#define KIND_CLIP 3 // low, high
#define KIND_NOT 4  // of bool

layout(constant_id = 1) const int kind = KIND_ABS;

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int count;
    int low;
    int high;
};

int apply(int v) {
    if (kind == KIND_ABS) return v < 0 ? -v : v;
    if (kind == KIND_NEG) return -v;
    if (kind == KIND_SIGN) return sign(v);
    if (kind == KIND_CLIP) return min(max(v, low), high);
    return v == 0 ? 1 : 0;
}

void main() {
    FOR_X(i, count) y[y_offset + i] = apply(x[x_offset + i]);
}
