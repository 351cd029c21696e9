// Rows that are shared out over lanes, by the variant axis `lanes` of a kernel:
//   shared_row: one workgroup computes one row, whose parts meet in shared memory;
//   shuffled_row: the same with a workgroup of 8 lanes of one subgroup, whose parts meet by shuffles: no barriers, which
//   cost a CPU driver more than the row does;
//   own_row: one invocation computes one row, neighbouring lanes the rows beside it.
// FIRST and STRIDE: the first element that an invocation takes, and the distance to its next one.
// COMBINE(value, combine): `value` of all the lanes of a row; every invocation of the workgroup must call it together.
// With `width` = vec4 an element is a vec4 (T), else a scalar; LARGEST and TOTAL are over its parts.
#ifndef VKCONV_ROWS_GLSL
#define VKCONV_ROWS_GLSL

#if defined(LANES_OWN_ROW)
#define FIRST 0
#define STRIDE 1
#define COMBINE(value, combine)
#elif defined(LANES_SHUFFLED_ROW)
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#define FIRST int(gl_SubgroupInvocationID & 7u)
#define STRIDE 8
// each lane combines all eight in the same order: the lanes that are named by constants are registers
#define COMBINE(value, combine)                                                                                        \
    {                                                                                                                  \
        ELEMENT of_lane = value;                                                                                         \
        value = subgroupShuffle(of_lane, 0u);                                                                          \
        UNROLL for (uint lane = 1u; lane < 8u; lane++) value = combine(value, subgroupShuffle(of_lane, lane));         \
    }
#else
#include "workgroup_reduction.glsl"
#define FIRST int(gl_LocalInvocationID.x)
#define STRIDE int(gl_WorkGroupSize.x)
#define COMBINE(value, combine) REDUCE_LANES(value, combine)
#endif

#if defined(WIDTH_VEC4)
#define T vec4
#define TOTAL(v) dot(v, vec4(1.0))
#define LARGEST(v) max(max((v).x, (v).y), max((v).z, (v).w))
#else
#define T float
#define TOTAL(v) (v)
#define LARGEST(v) (v)
#endif

float add(float a, float b) { return a + b; }

// SwiftShader: exp(NaN) = inf
T power(T v) { return mix(exp(v), v, isnan(v)); }

#endif
