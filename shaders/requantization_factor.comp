#version 450
#extension GL_GOOGLE_include_directive : require
// factor = a * b / c, each rounded to float32 (or `in_half` to float16): what a sum of products quantised with scales a and b is multiplied by for
// the scale c. a and b are strided arrays of up to 6 dimensions `size`; a stride of 0 broadcasts; c is one number.
// One invocation computes one element.
#include "tensor.glsl"
#include "activations.glsl"
#include "quantization.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int in_half = 0;

READ_BUFFER(0, a, float);
READ_BUFFER(1, b, float);
READ_BUFFER(2, c, float);
WRITE_BUFFER(3, factor, float);
layout(push_constant) uniform Push {
    int a_offset;
    int b_offset;
    int c_offset;
    int factor_offset;
    int count;
    int size[6];
    int a_stride[6];
    int b_stride[6];
};

void main() {
    float divisor = c[c_offset];
    FOR_X(i, count) {
        int from_a = a_offset, from_b = b_offset, rest = i;
        UNROLL for (int d = 5; d >= 0; d--) {
            int next = rest / size[d];
            int at = rest - next * size[d];
            from_a += at * a_stride[d];
            from_b += at * b_stride[d];
            rest = next;
        }
        precise float product = a[from_a] * b[from_b];
        float rounded = in_half != 0 ? round_to_half(vec4(product)).x : product;
        float result = quotient_exact(rounded, divisor);
        factor[factor_offset + i] = in_half != 0 ? round_to_half(vec4(result)).x : result;
    }
}
