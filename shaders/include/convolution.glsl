// The parts convolution kernels share: activation, residual addition, channel mask.
// Before including: nothing. After: declare `y` (WRITE_BUFFER vec4), `residual` (READ_VEC4) and the push constants
// `channels`, `alpha`, `beta`.
#ifndef VKCONV_CONVOLUTION_GLSL
#define VKCONV_CONVOLUTION_GLSL
#include "tensor.glsl"
#include "activations.glsl"

layout(constant_id = 10) const int ACTIVATION = ACT_NONE;
layout(constant_id = 11) const int RESIDUAL = 0; // 0 none, 1 before the activation, 2 after it
layout(constant_id = 12) const bool MASKED = false; // the last channel block is not full

// kernels with an axis `residual` declare it only where there is one
#if defined(RESIDUAL_OFF)
#define ADD_RESIDUAL(where, residual_index)
#else
#define ADD_RESIDUAL(where, residual_index)                                                        \
    if (RESIDUAL == where) result += LOAD(residual, residual_index);
#endif

// value = activation(value [+ residual]) [+ residual] with padding lanes zero, stored at y[y_index]
#define FINISH(value, y_index, residual_index, block)                                              \
    {                                                                                              \
        vec4 result = value;                                                                       \
        ADD_RESIDUAL(1, residual_index)                                                            \
        result = activate(ACTIVATION, result, alpha, beta);                                        \
        ADD_RESIDUAL(2, residual_index)                                                            \
        if (MASKED) result = keep_channels(result, block, channels);                               \
        y[y_index] = result;                                                                       \
    }

// Weights are [block][1 + taps][OUTPUT_TILE] in units of OUTPUT_TILE vec4: one vec4 holds four input channels of one
// output channel. With shuffle = on each lane loads one of LANES vec4 and the group spreads them: one load instruction
// brings LANES vec4 (on lavapipe a load costs far more than a shuffle with a constant lane).
#if defined(SHUFFLE_ON)
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

#endif
