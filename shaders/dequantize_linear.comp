#version 450
#extension GL_GOOGLE_include_directive : require
// y = (x - zero_point) * scale; linear. x is seen as (outer, axis, inner); scale and zero point lie at
// o * scale_step[0] + a / block * scale_step[1] + i * scale_step[2]. One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int has_zero_point = 0;

READ_BUFFER(0, x, int);
READ_BUFFER(1, scale, float);
READ_BUFFER(2, zero_point, int);
WRITE_BUFFER(3, y, float);
layout(push_constant) uniform Push {
    int x_offset;
    int scale_offset;
    int zero_point_offset;
    int y_offset;
    int outer;
    int axis;
    int inner;
    int block;
    int scale_step[3];
};

void main() {
    FOR_Y(o, outer) FOR_X(rest, axis * inner) {
        int a = rest / inner;
        int i = rest - a * inner;
        int from = o * scale_step[0] + a / block * scale_step[1] + i * scale_step[2];
        int at = o * axis * inner + rest;
        float v = float(x[x_offset + at]);
        if (has_zero_point != 0) v -= float(zero_point[zero_point_offset + from]);
        y[y_offset + at] = v * scale[scale_offset + from];
    }
}
