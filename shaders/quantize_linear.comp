#version 450
#extension GL_GOOGLE_include_directive : require
// y = saturate(round(x / scale) + zero_point), halves to even; linear. x is seen as (outer, axis, inner); scale and
// zero point lie at o * scale_step[0] + a / block * scale_step[1] + i * scale_step[2].
// `in_half`: the quotient is rounded to float16 first, as a division of that type would be.
// One invocation computes one element.
#include "tensor.glsl"
#include "activations.glsl"
#include "quantization.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int has_zero_point = 0;
layout(constant_id = 2) const int in_half = 0;

READ_BUFFER(0, x, float);
READ_BUFFER(1, scale, float);
READ_BUFFER(2, zero_point, int);
WRITE_BUFFER(3, y, int);
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
    int low;
    int high;
};

void main() {
    FOR_Y(o, outer) FOR_X(rest, axis * inner) {
        int a = rest / inner;
        int i = rest - a * inner;
        int from = o * scale_step[0] + a / block * scale_step[1] + i * scale_step[2];
        int at = o * axis * inner + rest;
        float q = quotient_exact(x[x_offset + at], scale[scale_offset + from]);
        if (in_half != 0) q = round_to_half(vec4(q)).x;
        int zero = has_zero_point != 0 ? zero_point[zero_point_offset + from] : 0;
        y[y_offset + at] = quantized(q, zero, low, high);
    }
}
