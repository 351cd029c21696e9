// Declaring and loading tensors. `access` says how read-only vec4 tensors are bound (a variant axis of the kernel):
//   storage_texel: imageBuffer, the fastest read on a CPU driver;  uniform_texel: samplerBuffer, through the texture
//   cache of many GPUs;  ssbo: plain storage buffer, everywhere;  weights_texel: samplerBuffer for the weights alone,
//   where feature maps have more texels than the device allows (kernels with READ_WEIGHTS).
// A kernel without that axis gets storage buffers. The public name of a buffer is `N` in all cases.
#ifndef VKCONV_TENSOR_GLSL
#define VKCONV_TENSOR_GLSL

#extension GL_EXT_control_flow_attributes : require
#define UNROLL [[unroll]]

// sum += a * b in one rounding where that is quicker: compilers for GPUs join a product and a sum in any case,
// lavapipe of Mesa 26.2 only where it is asked for, older ones never
#define ADD_PRODUCT(sum, a, b) sum = fma(a, b, sum)

#if defined(ACCESS_STORAGE_TEXEL)
#define READ_VEC4(B, N) layout(set = 0, binding = B, rgba32f) readonly uniform imageBuffer N
#define LOAD(N, index) imageLoad(N, index)
#elif defined(ACCESS_UNIFORM_TEXEL)
#define READ_VEC4(B, N) layout(set = 0, binding = B) uniform samplerBuffer N
#define LOAD(N, index) texelFetch(N, index)
#else
#define READ_VEC4(B, N) READ_BUFFER(B, N, vec4)
#define LOAD(N, index) N[index]
#endif

#if defined(ACCESS_WEIGHTS_TEXEL)
#define READ_WEIGHTS(B) layout(set = 0, binding = B) uniform samplerBuffer weights
#define LOAD_WEIGHTS(index) texelFetch(weights, index)
#else
#define READ_WEIGHTS(B) READ_VEC4(B, weights)
#define LOAD_WEIGHTS(index) LOAD(weights, index)
#endif

// storage buffers of any element type T
#define READ_BUFFER(B, N, T) layout(set = 0, binding = B, std430) readonly buffer N##_block { T N[]; }
#define WRITE_BUFFER(B, N, T) layout(set = 0, binding = B, std430) writeonly buffer N##_block { T N[]; }
#define UPDATE_BUFFER(B, N, T) layout(set = 0, binding = B, std430) buffer N##_block { T N[]; }

// element type of kernels with a `dtype` axis
#if defined(DTYPE_INT)
#define ELEMENT int
#define ELEMENT4 ivec4
#else
#define ELEMENT float
#define ELEMENT4 vec4
#endif

// the lanes of a C4 vec4 that hold channels (channel block `block` of a tensor with `channels` channels); padding
// lanes are always written as zero, so that a kernel may read them without a test
vec4 keep_channels(vec4 value, int block, int channels) {
    int left = channels - block * 4;
    return left >= 4 ? value
                     : vec4(left > 0 ? value.x : 0.0, left > 1 ? value.y : 0.0, left > 2 ? value.z : 0.0, 0.0);
}

#endif
