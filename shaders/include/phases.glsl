// Transposed convolution in sub-pixel form: outputs of one phase (oy mod sy, ox mod sx) have the same taps, of
// neighbouring inputs, so that each phase is a dense convolution of its own.
//   along an axis, output q * stride + phase takes tap k where k * dilation = phase + pad modulo stride,
//   from input q + (phase + pad - k * dilation) / stride
// Such taps are stride / common apart, and their inputs dilation / common, common being the greatest common divisor.
#ifndef VKCONV_PHASES_GLSL
#define VKCONV_PHASES_GLSL

layout(constant_id = 3) const int STRIDE_Y = 2;
layout(constant_id = 4) const int STRIDE_X = 2;
layout(constant_id = 5) const int DILATION_Y = 1;
layout(constant_id = 6) const int DILATION_X = 1;
layout(constant_id = 7) const int COMMON_Y = 1;
layout(constant_id = 8) const int COMMON_X = 1;
layout(constant_id = 9) const int INVERSE_Y = 1; // of dilation / common modulo stride / common
layout(constant_id = 13) const int INVERSE_X = 1;
const int PHASES = STRIDE_Y * STRIDE_X;
const int TAP_STEP_Y = STRIDE_Y / COMMON_Y, TAP_STEP_X = STRIDE_X / COMMON_X;
const int INPUT_STEP_Y = DILATION_Y / COMMON_Y, INPUT_STEP_X = DILATION_X / COMMON_X;
const int NO_TAP = 0x7fffffff;

// the first tap of a phase, NO_TAP where it has none; and the input that this tap of output q = 0 takes
ivec2 first_tap(int phase, int pad, int stride, int dilation, int divisor, int inverse) {
    int whole = pad >= 0 ? pad / stride : -((stride - 1 - pad) / stride);
    int shift = phase + pad - whole * stride; // 0 to 2 stride - 2
    int rest = shift % stride;
    if (rest % divisor != 0) return ivec2(NO_TAP, 0);
    int tap = rest / divisor * inverse % (stride / divisor);
    return ivec2(tap, whole + (shift - tap * dilation) / stride);
}

#define FIRST_TAP_Y(phase, pad) first_tap(phase, pad, STRIDE_Y, DILATION_Y, COMMON_Y, INVERSE_Y)
#define FIRST_TAP_X(phase, pad) first_tap(phase, pad, STRIDE_X, DILATION_X, COMMON_X, INVERSE_X)

#endif
