// Division and rounding as quantisation needs them: right to the last bit, since one unit more or less at a tie is
// another integer.
#ifndef VKCONV_QUANTIZATION_GLSL
#define VKCONV_QUANTIZATION_GLSL

// x = high + low, each of 12 bits (Veltkamp)
void split_bits(float x, out float high, out float low) {
    precise float c = x * 4097.0;
    precise float rest = c - x;
    precise float top = c - rest;
    high = top;
    precise float bottom = x - top;
    low = bottom;
}

// a / b correctly rounded. Vulkan allows 2.5 units in the last place (spec, "Precision and Operation of SPIR-V
// Instructions"): the remainder, exact by Dekker's product, says what is missing.
float quotient_exact(float a, float b) {
    precise float q = a / b;
    if (!(abs(q) < 1e30) || abs(q) < 1e-30) return q;
    float q_high, q_low, b_high, b_low;
    split_bits(q, q_high, q_low);
    split_bits(b, b_high, b_low);
    precise float p = q * b;
    precise float lost = ((q_high * b_high - p) + q_high * b_low + q_low * b_high) + q_low * b_low;
    precise float remainder = (a - p) - lost;
    // not a number where b is so large or small that the parts leave float's range
    precise float better = q + remainder / b;
    return abs(better - q) < abs(q) * 1e-6 ? better : q;
}

// the nearest integer, halves to even, plus the zero point, within [low, high]; NaN gives the lowest
int quantized(float x, int zero_point, int low, int high) {
    float bounded = x > 1e9 ? 1e9 : x > -1e9 ? x : -1e9;
    return clamp(int(roundEven(bounded)) + zero_point, low, high);
}

#endif
