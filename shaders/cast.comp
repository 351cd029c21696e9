#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(from = float, int; to = float, int)
#pragma vkconv exclude(from = float, to = float)
// y = x in another element type; linear. Floats become integers by truncation, saturated at int32's limits; then
// integers of `bits` < 32 wrap around as C's conversions do; `bits` = 1 is bool, x != 0.
// One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int bits = 32;
layout(constant_id = 2) const int is_signed = 1;

#if defined(FROM_INT)
READ_BUFFER(0, x, int);
#else
READ_BUFFER(0, x, float);
#endif
#if defined(TO_INT)
WRITE_BUFFER(1, y, int);
#else
WRITE_BUFFER(1, y, float);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int count;
};

int wrap(int v) {
    return bits >= 32 ? v : is_signed != 0 ? bitfieldExtract(v, 0, bits) : int(bitfieldExtract(uint(v), 0, bits));
}

void main() {
    FOR_X(i, count) {
#if defined(TO_INT) && defined(FROM_INT)
        int v = x[x_offset + i];
        y[y_offset + i] = bits == 1 ? (v != 0 ? 1 : 0) : wrap(v);
#elif defined(TO_INT)
        float v = x[x_offset + i];
        int whole = v >= 2147483647.0 ? 0x7fffffff : v > -2147483648.0 ? int(v) : int(0x80000000); // NaN: the least
        y[y_offset + i] = bits == 1 ? (v != 0.0 ? 1 : 0) : wrap(whole);
#else
        y[y_offset + i] = float(x[x_offset + i]);
#endif
    }
}
