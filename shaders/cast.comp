#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(from = float, int; to = float, int; width = vec4, scalar)
#pragma vkconv exclude(from = float, to = float)
// y = x in another element type; linear. Floats become integers by truncation, saturated at int32's limits; then
// integers of `bits` < 32 wrap around as C's conversions do; `bits` = 1 is bool, x != 0.
// One invocation computes one vec4, or one element where offset or count are not multiples of four.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int bits = 32;
layout(constant_id = 2) const int is_signed = 1;

#if defined(WIDTH_VEC4)
#define FLOATS vec4
#define INTS ivec4
#else
#define FLOATS float
#define INTS int
#endif
#if defined(FROM_INT)
READ_BUFFER(0, x, INTS);
#else
READ_BUFFER(0, x, FLOATS);
#endif
#if defined(TO_INT)
WRITE_BUFFER(1, y, INTS);
#else
WRITE_BUFFER(1, y, FLOATS);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int count;
};

int convert(int v) {
    if (bits == 1) return v != 0 ? 1 : 0;
    return bits >= 32 ? v : is_signed != 0 ? bitfieldExtract(v, 0, bits) : int(bitfieldExtract(uint(v), 0, bits));
}

int convert(float v) {
    if (bits == 1) return v != 0.0 ? 1 : 0;
    // a NaN becomes the least integer, as it does on the usual processors
    return convert(v >= 2147483647.0 ? 0x7fffffff : v > -2147483648.0 ? int(v) : int(0x80000000));
}

void main() {
    FOR_X(i, count) {
#if !defined(TO_INT)
        y[y_offset + i] = FLOATS(x[x_offset + i]);
#elif defined(WIDTH_VEC4)
#if defined(FROM_INT)
        ivec4 v = x[x_offset + i];
#else
        vec4 v = x[x_offset + i];
#endif
        y[y_offset + i] = ivec4(convert(v.x), convert(v.y), convert(v.z), convert(v.w));
#else
        y[y_offset + i] = convert(x[x_offset + i]);
#endif
    }
}
