// The parts convolution kernels share: activation, residual addition, channel mask.
// Before including: nothing. After: declare `y` (WRITE_BUFFER vec4, or WRITE_RESULT), `residual` (READ_VEC4) and the push
// constants `channels`, `alpha`, `beta`.
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

// result = activation(value [+ residual]) [+ residual]
#define EPILOGUE(value, residual_index)                                                            \
    vec4 result = value;                                                                           \
    ADD_RESIDUAL(1, residual_index)                                                                \
    result = activate(ACTIVATION, result, alpha, beta);                                            \
    ADD_RESIDUAL(2, residual_index)

// the epilogue's result with padding lanes zero, stored at y[y_index]
#define FINISH(value, y_index, residual_index, block)                                              \
    {                                                                                              \
        EPILOGUE(value, residual_index)                                                            \
        if (MASKED) result = keep_channels(result, block, channels);                               \
        y[y_index] = result;                                                                       \
    }

// Kernels with an axis `result` store it in C4, or dense and row-major for what reads LINEAR, a model's outputs above
// all: WRITE_RESULT declares y, and FINISH_AT stores four channels of a pixel of a map of `plane` pixels.
#if defined(RESULT_LINEAR)
#define WRITE_RESULT(B) WRITE_BUFFER(B, y, float)
#define FINISH_AT(value, y_start, residual_start, block, plane, pixel)                             \
    {                                                                                              \
        EPILOGUE(value, (residual_start) + (block) * (plane) + (pixel))                            \
        int y_index = (y_start) + 4 * (block) * (plane) + (pixel);                                 \
        int left = MASKED ? channels - 4 * (block) : 4;                                            \
        y[y_index] = result.x;                                                                     \
        if (left > 1) y[y_index + (plane)] = result.y;                                             \
        if (left > 2) y[y_index + 2 * (plane)] = result.z;                                         \
        if (left > 3) y[y_index + 3 * (plane)] = result.w;                                         \
    }
#else
#define WRITE_RESULT(B) WRITE_BUFFER(B, y, vec4)
#define FINISH_AT(value, y_start, residual_start, block, plane, pixel)                             \
    FINISH(value, (y_start) + (block) * (plane) + (pixel), (residual_start) + (block) * (plane) + (pixel), block)
#endif

// Weights are [block][1 + taps][OUTPUT_TILE] in units of OUTPUT_TILE vec4: one vec4 holds four input channels of one
// output channel. With shuffle = on each lane loads one of LANES vec4 and the group spreads them: one load instruction
// brings LANES vec4 (on lavapipe a load costs far more than a shuffle with a constant lane).
#if defined(SHUFFLE_ON)
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

#endif
