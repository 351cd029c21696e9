// What scale and bias of a normalisation belong to, by code: vkconv/ops/channel_statistics.py (a test compares the two).
#ifndef VKCONV_AFFINE_CODES_GLSL
#define VKCONV_AFFINE_CODES_GLSL

#define AFFINE_NONE 0
#define AFFINE_PER_CHANNEL 1
#define AFFINE_PER_GROUP 2

#endif
