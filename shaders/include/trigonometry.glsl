// Trigonometric and hyperbolic functions and their inverses, to an absolute error of 1e-6 (relative where the result
// is large). Vulkan promises 2^-11 for sin and cos, and that only for |x| <= pi (spec, "Precision and Operation of
// SPIR-V Instructions"). The codes are those of vkconv/ops/trigonometric.py (a test compares the two).
#ifndef VKCONV_TRIGONOMETRY_GLSL
#define VKCONV_TRIGONOMETRY_GLSL

#include "activations.glsl"

#define TRIG_SIN 0
#define TRIG_COS 1
#define TRIG_TAN 2
#define TRIG_ASIN 3
#define TRIG_ACOS 4
#define TRIG_ATAN 5
#define TRIG_SINH 6
#define TRIG_COSH 7
#define TRIG_ASINH 8
#define TRIG_ACOSH 9
#define TRIG_ATANH 10

const float HALF_PI = 1.5707963267948966;

vec4 not_a_number() { return intBitsToFloat(ivec4(0x7fc00000)); }

// x - k pi/2 with the k that leaves |x| <= pi/4, and k's last two bits (Cody & Waite, "Software Manual for the
// Elementary Functions", 1980). Three parts of pi/2 have 8 bits each, so that their products with k < 2^16 are exact:
// |x| up to 1e5.
vec4 reduce_angle(vec4 x, out ivec4 quadrant) {
    precise vec4 k = roundEven(x * 0.6366197723675814);
    precise vec4 r = x - k * 1.5703125;
    r = r - k * 4.825592041015625e-4;
    r = r - k * 1.2665987014770508e-6;
    r = r - k * 9.92093629470503e-10;
    // beyond int's range every k is a multiple of four
    quadrant = ivec4(mix(k, vec4(0.0), greaterThan(abs(k), vec4(1e9)))) & 3;
    return r;
}

// Taylor's series on [-pi/4, pi/4]: the first terms left out are below 3e-9
vec4 sine_near(vec4 r) {
    vec4 z = r * r;
    return r + r * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0))));
}
vec4 cosine_near(vec4 r) {
    vec4 z = r * r;
    return 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0 - z * (1.0 / 3628800.0)))));
}

// sin(x + quarters pi/2); an infinite x has none
vec4 sine(vec4 x, int quarters) {
    ivec4 quadrant;
    vec4 r = reduce_angle(x, quadrant);
    quadrant += quarters;
    vec4 y = mix(sine_near(r), cosine_near(r), equal(quadrant & 1, ivec4(1)));
    y = mix(y, -y, equal(quadrant & 2, ivec4(2)));
    return mix(y, not_a_number(), isinf(x));
}

vec4 tangent(vec4 x) {
    ivec4 quadrant;
    vec4 r = reduce_angle(x, quadrant);
    vec4 s = sine_near(r), c = cosine_near(r);
    return mix(mix(s / c, -c / s, equal(quadrant & 1, ivec4(1))), not_a_number(), isinf(x));
}

// asin(x) for 0 <= x <= 1/2, by a polynomial in x^2 through Chebyshev's nodes (error 9e-9)
vec4 arcsine_near(vec4 x) {
    vec4 z = x * x;
    vec4 p = 0.045520637184381485 + z * (0.023993998765945435 + z * 0.04241737350821495);
    return x * (1.0 + z * (0.16666781902313232 + z * (0.07494696974754333 + z * p)));
}

// acos(x) for 0 <= x: near 1 as 2 asin(sqrt((1 - x) / 2)), which keeps its digits; NaN above 1
vec4 arccosine_positive(vec4 x) {
    vec4 half_angle = 2.0 * arcsine_near(sqrt(max(0.5 - 0.5 * x, vec4(0.0))));
    vec4 y = mix(half_angle, HALF_PI - arcsine_near(x), lessThan(x, vec4(0.5)));
    return mix(y, not_a_number(), greaterThan(x, vec4(1.0)));
}

vec4 arcsine(vec4 x) {
    vec4 m = abs(x);
    return sign(x) * mix(HALF_PI - arccosine_positive(m), arcsine_near(m), lessThan(m, vec4(0.5)));
}

vec4 arccosine(vec4 x) {
    vec4 y = arccosine_positive(abs(x));
    return mix(y, 3.14159265358979 - y, lessThan(x, vec4(0.0)));
}

// atan by three ranges: |x| < tan(pi/8), around 1, and 1/x beyond tan(3 pi/8); polynomial as above (error 2e-9)
vec4 arctangent(vec4 x) {
    vec4 m = abs(x);
    bvec4 far = greaterThan(m, vec4(2.414213562)), middle = greaterThan(m, vec4(0.4142135624));
    vec4 t = mix(mix(m, (m - 1.0) / (m + 1.0), middle), -1.0 / m, far);
    vec4 start = mix(mix(vec4(0.0), vec4(0.5 * HALF_PI), middle), vec4(HALF_PI), far);
    vec4 z = t * t;
    vec4 p = -0.14239513874053955 + z * (0.10569684952497482 - z * 0.06025934964418411);
    return sign(x) * (start + t * (1.0 + z * (-0.3333330750465393 + z * (0.19998182356357574 + z * p))));
}

// exp(x) for 0 <= x < 80: 2^k exp(r), |r| <= log(2) / 2 with k log(2) taken off in two parts, by Taylor's series. The
// built-in exp is wrong by a part in 4e-6 at 87.
vec4 exponential(vec4 x) {
    precise vec4 k = roundEven(x * 1.4426950408889634);
    precise vec4 r = x - k * 0.693359375;
    r = r + k * 2.12194440e-4;
    vec4 p = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)));
    return (1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * p)))) * intBitsToFloat((ivec4(k) + 127) << 23);
}

// exp(|x|) / 2 as a square, which overflows only where the result does
vec4 half_exponential(vec4 x) {
    vec4 e = exponential(min(0.5 * abs(x), 79.0));
    return 0.5 * e * e;
}

vec4 hyperbolic_sine(vec4 x) {
    vec4 z = x * x;
    vec4 near = x * (1.0 + z * (1.0 / 6.0 + z * (1.0 / 120.0 + z * (1.0 / 5040.0 + z * (1.0 / 362880.0)))));
    vec4 e = half_exponential(x);
    return mix(sign(x) * (e - 0.25 / e), near, lessThan(abs(x), vec4(1.0)));
}

vec4 hyperbolic_cosine(vec4 x) {
    vec4 e = half_exponential(x);
    return e + 0.25 / e;
}

// log(1 + x) for 0 <= x
vec4 log1p_positive(vec4 x) { return mix(logarithm(1.0 + x), log1p_unit(min(x, 1.0)), lessThan(x, vec4(1.0))); }

// log(|x| + sqrt(x^2 + 1)); where x^2 would overflow, log(2 |x|)
vec4 inverse_hyperbolic_sine(vec4 x) {
    vec4 m = abs(x), z = min(m, vec4(1e9));
    z *= z;
    vec4 y = log1p_positive(m + z / (1.0 + sqrt(1.0 + z)));
    return sign(x) * mix(y, logarithm(m) + 0.69314718056, greaterThan(m, vec4(1e9)));
}

// log(x + sqrt(x^2 - 1)) with t = x - 1
vec4 inverse_hyperbolic_cosine(vec4 x) {
    vec4 t = min(x, vec4(1e9)) - 1.0;
    vec4 y = log1p_positive(t + sqrt(max(t * (t + 2.0), vec4(0.0))));
    y = mix(y, logarithm(x) + 0.69314718056, greaterThan(x, vec4(1e9)));
    return mix(y, not_a_number(), lessThan(x, vec4(1.0)));
}

// log((1 + x) / (1 - x)) / 2; 1 - x is exact where x is large enough to matter
vec4 inverse_hyperbolic_tangent(vec4 x) {
    vec4 m = abs(x);
    vec4 y = 0.5 * log1p_positive(2.0 * m / (1.0 - min(m, 1.0)));
    y = mix(y, intBitsToFloat(ivec4(0x7f800000)), equal(m, vec4(1.0)));
    return mix(sign(x) * y, not_a_number(), greaterThan(m, vec4(1.0)));
}

vec4 trigonometric(int kind, vec4 x) {
    if (kind == TRIG_SIN) return sine(x, 0);
    if (kind == TRIG_COS) return sine(x, 1);
    if (kind == TRIG_TAN) return tangent(x);
    if (kind == TRIG_ASIN) return arcsine(x);
    if (kind == TRIG_ACOS) return arccosine(x);
    if (kind == TRIG_ATAN) return arctangent(x);
    if (kind == TRIG_SINH) return hyperbolic_sine(x);
    if (kind == TRIG_COSH) return hyperbolic_cosine(x);
    if (kind == TRIG_ASINH) return inverse_hyperbolic_sine(x);
    if (kind == TRIG_ACOSH) return inverse_hyperbolic_cosine(x);
    return inverse_hyperbolic_tangent(x);
}

#endif
