// Functions of two elements by code (vkconv/ops/binary_codes.py; a test compares the two). `kind` is a specialization
// constant wherever this is called.
#ifndef VKCONV_BINARY_FUNCTIONS_GLSL
#define VKCONV_BINARY_FUNCTIONS_GLSL

#include "activations.glsl"

#define BINARY_ADD 0
#define BINARY_SUB 1
#define BINARY_MUL 2
#define BINARY_DIV 3
#define BINARY_POW 4
#define BINARY_MAX 5
#define BINARY_MIN 6
#define BINARY_PRELU 7
#define BINARY_MOD 8       // integers: the result has the divisor's sign
#define BINARY_REMAINDER 9 // integers: the result has the dividend's sign
#define BINARY_EQUAL 10
#define BINARY_LESS 11
#define BINARY_LESS_OR_EQUAL 12
#define BINARY_GREATER 13
#define BINARY_GREATER_OR_EQUAL 14
#define BINARY_AND 15
#define BINARY_OR 16
#define BINARY_XOR 17

// x^y as exp(y log |x|), with the special cases of C's pow that matter: integer y of negative x, y = 0, x = 1, zero,
// infinities and NaN. Squares, square roots and reciprocals are rounded once.
vec4 power(vec4 x, vec4 y) {
    vec4 magnitude = abs(x);
    vec4 result = exp(y * logarithm(magnitude));
    result = mix(result, magnitude * magnitude, equal(y, vec4(2.0)));
    result = mix(result, sqrt(magnitude), equal(y, vec4(0.5)));
    result = mix(result, 1.0 / magnitude, equal(y, vec4(-1.0)));
    result = mix(result, vec4(1.0), equal(magnitude, vec4(1.0))); // where y is infinite
    vec4 signed_result = mix(result, -result, notEqual(floor(y * 0.5) * 2.0, y)); // of odd y, where y is an integer
    vec4 of_negative = mix(intBitsToFloat(ivec4(0x7fc00000)), signed_result, equal(floor(y), y));
    result = mix(result, of_negative, lessThan(x, vec4(0.0)));
    result = mix(mix(result, x, isnan(x)), y, isnan(y));
    result = mix(result, vec4(1.0), equal(x, vec4(1.0)));
    return mix(result, vec4(1.0), equal(y, vec4(0.0)));
}

vec4 binary(int kind, vec4 a, vec4 b) {
    if (kind == BINARY_ADD) return a + b;
    if (kind == BINARY_SUB) return a - b;
    if (kind == BINARY_MUL) return a * b;
    if (kind == BINARY_DIV) return a / b;
    if (kind == BINARY_POW) return power(a, b);
    // NaN in either operand is the result, which max and min do not promise
    if (kind == BINARY_MAX) return mix(mix(b, a, greaterThan(a, b)), a, isnan(a));
    if (kind == BINARY_MIN) return mix(mix(b, a, lessThan(a, b)), a, isnan(a));
    if (kind == BINARY_PRELU) return mix(a, a * b, lessThan(a, vec4(0.0)));
    return a;
}

ivec4 compare(int kind, vec4 a, vec4 b) {
    if (kind == BINARY_EQUAL) return ivec4(equal(a, b));
    if (kind == BINARY_LESS) return ivec4(lessThan(a, b));
    if (kind == BINARY_LESS_OR_EQUAL) return ivec4(lessThanEqual(a, b));
    if (kind == BINARY_GREATER) return ivec4(greaterThan(a, b));
    return ivec4(greaterThanEqual(a, b));
}

// integer division truncates toward zero; by zero, and of the least integer by -1, it is undefined in GLSL and could
// stop a CPU driver: the result is then 0, and -a
int quotient(int a, int b) {
    if (b == 0) return 0;
    if (b == -1) return -a;
    return a / b;
}

// base^exponent by squaring, wrapping around as ONNX's C++ does; a negative exponent gives 0 but for 1 and -1
int power_int(int base, int exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? ((exponent & 1) != 0 ? -1 : 1) : 0;
    int result = 1;
    for (int e = exponent; e > 0; e >>= 1) {
        if ((e & 1) != 0) result *= base;
        base *= base;
    }
    return result;
}

int binary_int(int kind, int a, int b) {
    if (kind == BINARY_ADD) return a + b;
    if (kind == BINARY_SUB) return a - b;
    if (kind == BINARY_MUL) return a * b;
    if (kind == BINARY_DIV) return quotient(a, b);
    if (kind == BINARY_POW) return power_int(a, b);
    if (kind == BINARY_MAX) return max(a, b);
    if (kind == BINARY_MIN) return min(a, b);
    if (kind == BINARY_PRELU) return a < 0 ? a * b : a;
    if (kind == BINARY_MOD) {
        int r = a - quotient(a, b) * b;
        return r != 0 && (r < 0) != (b < 0) && b != 0 ? r + b : r;
    }
    if (kind == BINARY_REMAINDER) return a - quotient(a, b) * b;
    if (kind == BINARY_EQUAL) return int(a == b);
    if (kind == BINARY_LESS) return int(a < b);
    if (kind == BINARY_LESS_OR_EQUAL) return int(a <= b);
    if (kind == BINARY_GREATER) return int(a > b);
    if (kind == BINARY_GREATER_OR_EQUAL) return int(a >= b);
    if (kind == BINARY_AND) return int(a != 0 && b != 0);
    if (kind == BINARY_OR) return int(a != 0 || b != 0);
    return int((a != 0) != (b != 0));
}

#endif
