#version 450
#extension GL_GOOGLE_include_directive : require
// y = 1 where x is of the class `kind` (vkconv/ops/float_classes.py), else 0; linear. Told by the bits of x, which no
// driver's floating-point mode changes. One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"

#define CLASS_NAN 1
#define CLASS_POSITIVE_INFINITY 2
#define CLASS_NEGATIVE_INFINITY 4

layout(constant_id = 1) const int kinds = CLASS_NAN; // the sum of those that count

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int count;
};

void main() {
    FOR_X(i, count) {
        int bits = x[x_offset + i];
        int magnitude = bits & 0x7fffffff;
        int kind = magnitude > 0x7f800000    ? CLASS_NAN
                   : magnitude < 0x7f800000  ? 0
                   : bits > 0                ? CLASS_POSITIVE_INFINITY
                                             : CLASS_NEGATIVE_INFINITY;
        y[y_offset + i] = (kind & kinds) != 0 ? 1 : 0;
    }
}
