// Loops that cover a range whatever the number of workgroups, so that a grid may be clamped to a device's limits, or
// kept small where starting a workgroup is dear. x runs over invocations, y and z over workgroups. Where the grid
// covers an axis whole, its `loop_` constant is false and the loop is none: a loop over masked lanes costs a CPU
// driver about a third of a small kernel (measured on lavapipe with a 2x2 maximum).
#ifndef VKCONV_GRID_GLSL
#define VKCONV_GRID_GLSL

layout(local_size_x_id = 0) in;
layout(constant_id = 60) const bool loop_x = true;
layout(constant_id = 61) const bool loop_y = true;
layout(constant_id = 62) const bool loop_z = true;

#define FOR_X(name, count)                                                                                             \
    for (int name = int(gl_GlobalInvocationID.x), name##_turn = 0; loop_x ? name < (count) : name##_turn < 1;          \
         name += int(gl_NumWorkGroups.x * gl_WorkGroupSize.x), name##_turn++)                                          \
        if (loop_x || name < (count))
#define FOR_Y(name, count)                                                                                             \
    for (int name = int(gl_WorkGroupID.y), name##_turn = 0; loop_y ? name < (count) : name##_turn < 1;                 \
         name += int(gl_NumWorkGroups.y), name##_turn++)
#define FOR_Z(name, count)                                                                                             \
    for (int name = int(gl_WorkGroupID.z), name##_turn = 0; loop_z ? name < (count) : name##_turn < 1;                 \
         name += int(gl_NumWorkGroups.z), name##_turn++)

// (a / b, a % b) for 0 <= a and 0 < b, without integer division, which CPU drivers do lane by lane: there, eight of
// them cost as much as dozens of multiplications. The quotient in float may be off by some units where it exceeds 2^22
// (Vulkan grants a division 2.5 ulp); what remains is divided once more, and then at most one is missing or too much.
ivec2 divide(int a, int b) {
    float divisor = float(b);
    int q = int(float(a) / divisor);
    q += int(float(a - q * b) / divisor);
    int r = a - q * b;
    int fix = r < 0 ? -1 : r >= b ? 1 : 0;
    return ivec2(q + fix, r - fix * b);
}

#endif
