#version 450
#extension GL_GOOGLE_include_directive : require
// y = the exact remainder of a / b, truncated (the sign is a's, `floored` 0) or floored (b's, `floored` 1); linear, with
// broadcasting. By long division of the mantissas, one bit per step, since a - b * trunc(a / b) in float32 has no digits
// left where the quotient is large. NaN for b = 0, infinite a, and NaN.
// Each operand is a strided array of up to 6 dimensions `size`; a stride of 0 broadcasts. One invocation computes one
// element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int floored = 0;

READ_BUFFER(0, a, int); // the bits of floats
READ_BUFFER(1, b, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int a_offset;
    int b_offset;
    int y_offset;
    int count;
    int size[6];
    int a_stride[6];
    int b_stride[6];
};

const int INFINITE = 0x7f800000;

// mantissa with its leading bit at 23, and the exponent that goes with it, of the bits of a positive number
void take_apart(int bits, out int mantissa, out int exponent) {
    exponent = bits >> 23;
    mantissa = (bits & 0x7fffff) | 0x800000;
    if (exponent == 0) {
        int shift = 23 - findMSB(bits);
        mantissa = bits << shift;
        exponent = 1 - shift;
    }
}

// of positive numbers, as bits; low < INFINITE, 0 < high
int remainder_bits(int low, int high) {
    if (low < high) return low;
    int m, e, divisor, least;
    take_apart(low, m, e);
    take_apart(high, divisor, least);
    for (; e > least; e--) {
        if (m >= divisor) m -= divisor;
        m <<= 1;
    }
    if (m >= divisor) m -= divisor;
    if (m == 0) return 0;
    int shift = 23 - findMSB(m);
    m <<= shift;
    e -= shift;
    return e > 0 ? (m - 0x800000) | (e << 23) : m >> (1 - e);
}

int apply(int u, int v) {
    int low = u & 0x7fffffff, high = v & 0x7fffffff;
    if (high == 0 || high > INFINITE || low >= INFINITE) return 0x7fc00000;
    int r = high == INFINITE ? low : remainder_bits(low, high);
    int sign_a = u & int(0x80000000), sign_b = v & int(0x80000000);
    if (floored == 0) return r | sign_a;
    if (r == 0) return sign_b;
    return sign_a == sign_b ? r | sign_a : floatBitsToInt(intBitsToFloat(r | sign_a) + intBitsToFloat(v));
}

void main() {
    FOR_X(i, count) {
        int from_a = a_offset, from_b = b_offset, rest = i;
        UNROLL for (int d = 5; d >= 0; d--) {
            int next = rest / size[d];
            int at = rest - next * size[d];
            from_a += at * a_stride[d];
            from_b += at * b_stride[d];
            rest = next;
        }
        y[y_offset + i] = apply(a[from_a], b[from_b]);
    }
}
