// How a scatter combines an update with what is there; the codes are those of vkconv/ops/scatter_kernels.py.
#ifndef VKCONV_SCATTER_REDUCTIONS_GLSL
#define VKCONV_SCATTER_REDUCTIONS_GLSL

#define REDUCE_NONE 0
#define REDUCE_ADD 1
#define REDUCE_MUL 2
#define REDUCE_MAX 3
#define REDUCE_MIN 4

layout(constant_id = 1) const int reduction = REDUCE_NONE;

bool is_nan(ELEMENT v) {
#if defined(DTYPE_INT)
    return false;
#else
    return isnan(v);
#endif
}

ELEMENT combine(ELEMENT a, ELEMENT b) {
    if (reduction == REDUCE_NONE) return b;
    if (reduction == REDUCE_ADD) return a + b;
    if (reduction == REDUCE_MUL) return a * b;
    // a NaN stays, which max and min do not promise
    if (reduction == REDUCE_MAX) return a > b || is_nan(a) ? a : b;
    return a < b || is_nan(a) ? a : b;
}

#endif
