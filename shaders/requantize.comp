#version 450
#extension GL_GOOGLE_include_directive : require
// y = saturate(round(x * factor) + zero_point) of int32 sums x, halves to even; linear. factor is a strided array of up
// to 6 dimensions `size`; a stride of 0 broadcasts. One invocation computes one element.
#include "tensor.glsl"
#include "quantization.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, int);
READ_BUFFER(1, factor, float);
READ_BUFFER(2, zero_point, int);
WRITE_BUFFER(3, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int factor_offset;
    int zero_point_offset;
    int y_offset;
    int count;
    int size[6];
    int factor_stride[6];
    int low;
    int high;
};

void main() {
    int zero = zero_point[zero_point_offset];
    FOR_X(i, count) {
        int from = factor_offset, rest = i;
        UNROLL for (int d = 5; d >= 0; d--) {
            int next = rest / size[d];
            from += (rest - next * size[d]) * factor_stride[d];
            rest = next;
        }
        precise float scaled = float(x[x_offset + i]) * factor[from];
        y[y_offset + i] = quantized(scaled, zero, low, high);
    }
}
