#version 450
#extension GL_GOOGLE_include_directive : require
// y[o, d, i] = values[1] where d == indices[o, i], else values[0]; a negative index counts from `depth`, one outside
// [-depth, depth) matches nothing. Linear; values are moved as bits. One invocation writes one element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool float_indices = false;

READ_BUFFER(0, indices, int);
READ_BUFFER(1, values, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int indices_offset;
    int values_offset;
    int y_offset;
    int outer;
    int depth;
    int inner;
};

int whole(int bits) {
    if (!float_indices) return bits;
    float number = intBitsToFloat(bits);
    // beyond these no index matches, and not every float is an int
    return number > -2.0e9 && number < 2.0e9 ? int(number) : 0x7fffffff;
}

void main() {
    FOR_Y(o, outer) FOR_X(e, depth * inner) {
        int d = e / inner, i = e - d * inner;
        int index = whole(indices[indices_offset + o * inner + i]);
        if (index < 0) index += depth;
        y[y_offset + o * depth * inner + e] = values[values_offset + (index == d ? 1 : 0)];
    }
}
