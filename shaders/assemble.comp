#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(width = one, spread, four; access = storage_texel, uniform_texel, ssbo)
#pragma vkconv exclude(width = one, access = storage_texel)
#pragma vkconv exclude(width = one, access = uniform_texel)
// One part of a tensor: y[sum i_d * y_stride_d] = f5(f4(... f0(x[sum i_d * x_stride_d]))) for all indices i of four
// dimensions `size`, the innermost last.
// A step f(v) is by its code (vkconv/ops/parts.py): nothing (0); a function of one element (activations.glsl); from
// SECOND_CODE on a function of v and an operand (binary_functions.glsl), from SWAPPED_CODE on of the operand and v.
// The operand: v itself (0); an element of `first` (1) or `second` (2), tensors with strides of their own; a number
// (from FIRST_NUMBER on). An activation's alpha and beta are that number and the next, or 0 where the operand is 0.
// Strides and starts count scalars. One invocation computes one element (width = one), or four along the innermost
// dimension, which lie together in x: they are stored apart (spread), or together (four). The innermost size counts
// fours then, the innermost strides are from four to four, and all strides of x, and of y with `four`, count vec4s.
#include "tensor.glsl"
#include "binary_functions.glsl"
#include "grid.glsl"

#define SECOND_CODE 100
#define SWAPPED_CODE 200
#define FIRST_NUMBER 3
#define LANES_ONE 0
#define LANES_TOGETHER 1

layout(constant_id = 1) const int function_0 = 0;
layout(constant_id = 2) const int function_1 = 0;
layout(constant_id = 3) const int function_2 = 0;
layout(constant_id = 4) const int function_3 = 0;
layout(constant_id = 5) const int function_4 = 0;
layout(constant_id = 6) const int function_5 = 0;
layout(constant_id = 7) const int operand_0 = 0;
layout(constant_id = 8) const int operand_1 = 0;
layout(constant_id = 9) const int operand_2 = 0;
layout(constant_id = 10) const int operand_3 = 0;
layout(constant_id = 11) const int operand_4 = 0;
layout(constant_id = 12) const int operand_5 = 0;
// how many of `first` and `second` there are
layout(constant_id = 13) const int tensors = 0;
// the operands of an invocation's four elements: ONE for all, a vec4 that lies TOGETHER, or each in its place
layout(constant_id = 14) const int first_lanes = 2;
layout(constant_id = 15) const int second_lanes = 2;

#if defined(WIDTH_ONE)
READ_BUFFER(0, x, float);
READ_BUFFER(1, first, float);
READ_BUFFER(2, second, float);
#else
READ_VEC4(0, x);
READ_VEC4(1, first);
READ_VEC4(2, second);
#endif
#if defined(WIDTH_FOUR)
WRITE_BUFFER(3, y, vec4);
#else
WRITE_BUFFER(3, y, float);
#endif
layout(push_constant) uniform Push {
    int x_offset;
    int first_offset;
    int second_offset;
    int y_offset;
    int size[4];
    int x_stride[4];
    int first_stride[4];
    int second_stride[4];
    int y_stride[4];
    int first_start;
    int second_start;
    float numbers[6];
};

// one step of the chain
vec4 apply(int function, int operand, vec4 v, vec4 a, vec4 b) {
    if (function == 0) return v;
    float number = numbers[clamp(operand - FIRST_NUMBER, 0, 5)];
    if (function < SECOND_CODE) {
        float next = numbers[clamp(operand - FIRST_NUMBER + 1, 0, 5)];
        bool given = operand >= FIRST_NUMBER;
        return activate(function, v, given ? number : 0.0, given ? next : 0.0);
    }
    vec4 other = operand == 0 ? v : operand == 1 ? a : operand == 2 ? b : vec4(number);
    return function < SWAPPED_CODE ? binary(function - SECOND_CODE, v, other)
                                   : binary(function - SWAPPED_CODE, other, v);
}

int place(int stride[4], int i0, int i1, int i2, int i3) {
    return i0 * stride[0] + i1 * stride[1] + i2 * stride[2] + i3 * stride[3];
}

// the operands of an invocation's one or four elements from scalar `at` on, where the buffer's own offset counts vec4s
#if defined(WIDTH_ONE)
#define OPERANDS(N, at, next) vec4(N[N##_offset + (at)])
#else
#define LANE(N, at) LOAD(N, N##_offset + ((at) >> 2))[(at) & 3]
#define APART(N, at, next)                                                                                             \
    vec4(LANE(N, at), LANE(N, (at) + (next)), LANE(N, (at) + 2 * (next)), LANE(N, (at) + 3 * (next)))
#define OPERANDS(N, at, next)                                                                                          \
    (N##_lanes == LANES_TOGETHER ? LOAD(N, N##_offset + ((at) >> 2))                                                   \
     : N##_lanes == LANES_ONE    ? vec4(LANE(N, at))                                                                   \
                                 : APART(N, at, next))
#endif

void main() {
    FOR_Z(i0, size[0]) FOR_Y(i1, size[1]) FOR_X(i, size[2] * size[3]) {
#if defined(WIDTH_SPREAD)
        // dimension 2 is the nearer one in y: neighbouring lanes store into one cache line (measured on lavapipe with
        // 80 planes of 40x40 to 1600 rows of 80: 0.5 ms, the other way round 1.0)
        ivec2 inner = divide(i, size[2]).yx;
#else
        ivec2 inner = divide(i, size[3]);
#endif
        vec4 a = vec4(0.0), b = vec4(0.0);
        if (tensors > 0) {
            int at = first_start + place(first_stride, i0, i1, inner.x, inner.y);
            a = OPERANDS(first, at, first_stride[3] >> 2);
        }
        if (tensors > 1) {
            int at = second_start + place(second_stride, i0, i1, inner.x, inner.y);
            b = OPERANDS(second, at, second_stride[3] >> 2);
        }
        int from = x_offset + place(x_stride, i0, i1, inner.x, inner.y);
        int to = y_offset + place(y_stride, i0, i1, inner.x, inner.y);
#if defined(WIDTH_ONE)
        vec4 v = vec4(x[from]);
#else
        vec4 v = LOAD(x, from);
#endif
        v = apply(function_0, operand_0, v, a, b);
        v = apply(function_1, operand_1, v, a, b);
        v = apply(function_2, operand_2, v, a, b);
        v = apply(function_3, operand_3, v, a, b);
        v = apply(function_4, operand_4, v, a, b);
        v = apply(function_5, operand_5, v, a, b);
#if defined(WIDTH_ONE)
        y[to] = v.x;
#elif defined(WIDTH_FOUR)
        y[to] = v;
#else
        int next = y_stride[3] >> 2;
        y[to] = v.x;
        y[to + next] = v.y;
        y[to + 2 * next] = v.z;
        y[to + 3 * next] = v.w;
#endif
    }
}
