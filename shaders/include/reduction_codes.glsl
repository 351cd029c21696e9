// What reductions do, by code: those of vkconv/ops/reduction_kernels.py (a test compares the two).
#ifndef VKCONV_REDUCTION_CODES_GLSL
#define VKCONV_REDUCTION_CODES_GLSL

#define COMBINE_SUM 0
#define COMBINE_MAX 1
#define COMBINE_MIN 2
#define COMBINE_PROD 3
#define PRE_NONE 0
#define PRE_ABS 1
#define PRE_SQUARE 2
#define PRE_EXP 3 // exp(x - max), and post adds the max again
#define POST_NONE 0
#define POST_MEAN 1
#define POST_SQRT 2
#define POST_LOG 3

#endif
