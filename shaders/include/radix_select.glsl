// Finding the best elements of rows without sorting them: elements as unsigned keys, the best the largest, whose digits
// (of RADIX_BITS) are settled one after the other from the top. Element i of row (o, c) lies at
// (o * length + i) * inner + c; a row is cut into `chunks` of `chunk` elements. `state` holds two numbers per row: the
// digits of the last key that is taken, as far as they are settled, and how many of the keys that begin so are taken.
#ifndef VKCONV_RADIX_SELECT_GLSL
#define VKCONV_RADIX_SELECT_GLSL

#include "indexing.glsl"

#define RADIX_BITS 8
#define RADIX 256

layout(constant_id = 1) const bool is_float = true;
layout(constant_id = 2) const bool ascending = false;

uint radix_key(int bits) { return uint(sort_key(bits, is_float, ascending, false)) ^ 0x80000000u; }

#endif
