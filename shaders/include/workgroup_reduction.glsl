// Sums and maxima over the lanes of a workgroup, through shared memory. Every invocation of the workgroup must call
// these together. The workgroup's size (specialization constant 0) is a power of two, at most REDUCTION_LANES.
#ifndef VKCONV_WORKGROUP_REDUCTION_GLSL
#define VKCONV_WORKGROUP_REDUCTION_GLSL

#ifndef REDUCTION_LANES
#define REDUCTION_LANES 64
#endif

shared ELEMENT partial_values[REDUCTION_LANES];

#define REDUCE_LANES(value, combine)                                                                                   \
    {                                                                                                                  \
        int lane = int(gl_LocalInvocationID.x);                                                                        \
        barrier();                                                                                                     \
        partial_values[lane] = value;                                                                                  \
        barrier();                                                                                                     \
        for (int half_size = int(gl_WorkGroupSize.x) / 2; half_size > 0; half_size /= 2) {                             \
            if (lane < half_size) partial_values[lane] = combine(partial_values[lane], partial_values[lane + half_size]); \
            barrier();                                                                                                 \
        }                                                                                                              \
        value = partial_values[0];                                                                                     \
    }

#endif
