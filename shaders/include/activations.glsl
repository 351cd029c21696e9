// Element-wise functions by code, shared by the unary kernel and by the epilogues of convolution and matrix product.
// The codes are those of vkconv/ops/activation_codes.py (a test compares the two). `kind` is a specialization
// constant wherever this is called, so the chain folds to one function.
#ifndef VKCONV_ACTIVATIONS_GLSL
#define VKCONV_ACTIVATIONS_GLSL

#define ACT_NONE 0
#define ACT_RELU 1
#define ACT_LEAKY_RELU 2   // alpha: slope
#define ACT_CLIP 3         // alpha: low, beta: high
#define ACT_SIGMOID 4
#define ACT_TANH 5
#define ACT_SILU 6         // x * sigmoid(alpha * x)
#define ACT_HARD_SIGMOID 7 // clamp(alpha * x + beta, 0, 1)
#define ACT_HARD_SWISH 8   // x * clamp(alpha * x + beta, 0, 1)
#define ACT_ELU 9          // alpha
#define ACT_MISH 10
#define ACT_SOFTPLUS 11
#define ACT_GELU 12        // exact, with erf
#define ACT_GELU_TANH 13
#define ACT_ERF 14
#define ACT_ABS 15
#define ACT_NEG 16
#define ACT_SQRT 17
#define ACT_EXP 18
#define ACT_LOG 19
#define ACT_RECIPROCAL 20
#define ACT_FLOOR 21
#define ACT_CEIL 22
#define ACT_ROUND 23       // half to even
#define ACT_SIGN 24
#define ACT_SELU 25        // alpha, beta: gamma
#define ACT_CELU 26        // alpha
#define ACT_THRESHOLDED_RELU 27 // alpha
#define ACT_SOFTSIGN 28
#define ACT_HALF 29          // rounded to the nearest float16
#define ACT_SHRINK 30        // alpha: lambda, beta: bias

// The built-in transcendental functions of Vulkan are only loosely specified (spec, "Precision and Operation of SPIR-V
// Instructions"). Measured on lavapipe and SwiftShader: exp is good to 4e-6 relative at |x| = 87 and better below; log
// has an absolute error near 1, which is a relative one of 70 % right beside it, and SwiftShader's knows neither zero
// nor infinity; tanh is NaN for large arguments on SwiftShader. Hence log, tanh and erf are written out.

// log(x) = k log 2 + 2 artanh(s), where x = 2^k m, sqrt(1/2) <= m < sqrt(2), s = (m - 1) / (m + 1). The artanh series
// to s^9 leaves less than 3e-9; 0.693359375 has so few bits that its product with k is exact.
vec4 logarithm(vec4 x) {
    bvec4 tiny = lessThan(x, vec4(1.17549435e-38)); // denormals are scaled up by 2^24 first
    ivec4 bits = floatBitsToInt(mix(x, x * 16777216.0, tiny)) - 0x3f3504f3;
    vec4 k = vec4(bits >> 23) - mix(vec4(0.0), vec4(24.0), tiny);
    vec4 m = intBitsToFloat((bits & 0x007fffff) + 0x3f3504f3);
    vec4 s = (m - 1.0) / (m + 1.0);
    vec4 z = s * s;
    vec4 series = z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0))));
    vec4 y = k * 0.693359375 + (k * -2.12194440e-4 + (2.0 * s + 2.0 * s * series));
    y = mix(y, x, not(lessThanEqual(x, vec4(3.4028235e38)))); // infinity, NaN
    y = mix(y, intBitsToFloat(ivec4(0xff800000)), equal(x, vec4(0.0)));
    return mix(y, intBitsToFloat(ivec4(0x7fc00000)), lessThan(x, vec4(0.0)));
}

// log(1 + x) for 0 <= x <= 1: artanh's series where 1 + x would lose the digits of x
vec4 log1p_unit(vec4 x) {
    vec4 s = x / (2.0 + x);
    vec4 z = s * s;
    vec4 near = 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0))));
    return mix(logarithm(1.0 + x), near, lessThan(x, vec4(0.25)));
}

// tanh by exp of a non-positive argument: never inf/inf, and exact to rounding near zero through the series
vec4 safe_tanh(vec4 x) {
    vec4 magnitude = abs(x);
    vec4 e = exp(-2.0 * magnitude);
    vec4 far = (1.0 - e) / (1.0 + e);
    vec4 square = x * x;
    vec4 near = magnitude * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    return sign(x) * mix(far, near, lessThan(magnitude, vec4(0.15)));
}

vec4 sigmoid(vec4 x) { return 1.0 / (1.0 + exp(-x)); }

// log(1 + exp(x)) without overflow
vec4 softplus(vec4 x) { return max(x, 0.0) + log1p_unit(exp(-abs(x))); }

// erfc(m) for m >= 0, relative error below 1e-6: a polynomial in t = 1 / (1 + 0.33 m), fitted (minimax, 9e-8) to
// erfc(m) exp(m^2) / t on [0, 10], where erfc leaves the range of float32
vec4 complementary_error(vec4 m) {
    vec4 t = 1.0 / (1.0 + 0.33 * m);
    vec4 p = 0.4602365596 - t * 0.1353455507;
    p = 0.4084991100 + t * (-0.3511487564 + t * p);
    p = 0.2012237434 + t * (0.0472211201 + t * p);
    p = 0.1863577818 + t * (0.1829559649 + t * p);
    return t * p * exp(-m * m);
}

vec4 error_function(vec4 x) {
    vec4 magnitude = abs(x);
    vec4 far = 1.0 - complementary_error(magnitude);
    vec4 square = x * x;
    vec4 near = 1.1283791671 * magnitude
        * (1.0 - square * (1.0 / 3.0 - square * (1.0 / 10.0 - square * (1.0 / 42.0 - square * (1.0 / 216.0)))));
    return sign(x) * mix(far, near, lessThan(magnitude, vec4(0.4)));
}

// x/2 erfc(-x / sqrt(2)): keeps its digits for negative x, where 1 + erf(x / sqrt(2)) cancels
vec4 gelu(vec4 x) {
    vec4 tail = complementary_error(min(abs(x), 20.0) * 0.70710678118);
    return 0.5 * x * mix(2.0 - tail, tail, lessThan(x, vec4(0.0)));
}

// x/2 (1 + tanh(u)) = x sigmoid(2u)
vec4 gelu_tanh(vec4 x) { return x * sigmoid(1.59576912161 * (x + 0.044715 * x * x * x)); }

// tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2) with e = exp(x): one exponential, no cancellation
vec4 mish(vec4 x) {
    vec4 e = exp(min(x, 20.0));
    vec4 n = e * (e + 2.0);
    return mix(x * (n / (n + 2.0)), x, greaterThan(x, vec4(20.0)));
}

// exp(x) - 1, by the Taylor series where the difference would cancel
vec4 expm1(vec4 x) {
    vec4 near = x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x / 120.0))));
    return mix(exp(x) - 1.0, near, lessThan(abs(x), vec4(0.2)));
}

// to float16 and back; packing a value beyond float16's range is undefined, and NaN on SwiftShader
vec4 round_to_half(vec4 x) {
    vec4 bounded = clamp(x, -65504.0, 65504.0);
    vec4 y = vec4(unpackHalf2x16(packHalf2x16(bounded.xy)), unpackHalf2x16(packHalf2x16(bounded.zw)));
    return mix(y, sign(x) * intBitsToFloat(ivec4(0x7f800000)), greaterThanEqual(abs(x), vec4(65520.0)));
}

vec4 activate(int kind, vec4 x, float alpha, float beta) {
    // comparisons rather than max and min: these may drop a NaN, and drivers that must not take longer for it
    if (kind == ACT_RELU) return mix(x, vec4(0.0), lessThan(x, vec4(0.0)));
    if (kind == ACT_LEAKY_RELU) return mix(x, x * alpha, lessThan(x, vec4(0.0)));
    if (kind == ACT_CLIP) {
        x = mix(x, vec4(alpha), lessThan(x, vec4(alpha)));
        return mix(x, vec4(beta), greaterThan(x, vec4(beta)));
    }
    if (kind == ACT_SIGMOID) return sigmoid(x);
    if (kind == ACT_TANH) return safe_tanh(x);
    if (kind == ACT_SILU) return x * sigmoid(alpha * x);
    if (kind == ACT_HARD_SIGMOID) return clamp(alpha * x + beta, 0.0, 1.0);
    if (kind == ACT_HARD_SWISH) return x * clamp(alpha * x + beta, 0.0, 1.0);
    if (kind == ACT_ELU) return mix(x, alpha * expm1(min(x, 0.0)), lessThan(x, vec4(0.0)));
    if (kind == ACT_MISH) return mish(x);
    if (kind == ACT_SOFTPLUS) return softplus(x);
    if (kind == ACT_GELU) return gelu(x);
    if (kind == ACT_GELU_TANH) return gelu_tanh(x);
    if (kind == ACT_ERF) return error_function(x);
    if (kind == ACT_ABS) return abs(x);
    if (kind == ACT_NEG) return -x;
    if (kind == ACT_SQRT) return sqrt(x);
    if (kind == ACT_EXP) return exp(x);
    if (kind == ACT_LOG) return logarithm(x);
    if (kind == ACT_RECIPROCAL) return 1.0 / x;
    if (kind == ACT_FLOOR) return floor(x);
    if (kind == ACT_CEIL) return ceil(x);
    if (kind == ACT_ROUND) return roundEven(x);
    if (kind == ACT_SIGN) return sign(x);
    if (kind == ACT_SELU) return beta * mix(x, alpha * expm1(min(x, 0.0)), lessThan(x, vec4(0.0)));
    if (kind == ACT_CELU)
        return max(x, 0.0) + min(alpha * expm1(min(x, 0.0) / alpha), 0.0);
    if (kind == ACT_THRESHOLDED_RELU) return mix(vec4(0.0), x, greaterThan(x, vec4(alpha)));
    if (kind == ACT_SOFTSIGN) return x / (1.0 + abs(x));
    if (kind == ACT_HALF) return round_to_half(x);
    if (kind == ACT_SHRINK) {
        vec4 y = mix(vec4(0.0), x - beta, greaterThan(x, vec4(alpha)));
        return mix(y, x + beta, lessThan(x, vec4(-alpha)));
    }
    return x;
}

#endif
