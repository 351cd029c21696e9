// Loops that cover a range whatever the number of workgroups: a grid clamped to the device's limits still reaches
// every item. `local_size_x` is specialization constant 0; x runs over invocations, y and z over workgroups.
#ifndef VKCONV_GRID_GLSL
#define VKCONV_GRID_GLSL

layout(local_size_x_id = 0) in;

#define FOR_X(name, count)                                                                                             \
    for (int name = int(gl_GlobalInvocationID.x); name < (count); name += int(gl_NumWorkGroups.x * gl_WorkGroupSize.x))
#define FOR_Y(name, count) for (int name = int(gl_WorkGroupID.y); name < (count); name += int(gl_NumWorkGroups.y))
#define FOR_Z(name, count) for (int name = int(gl_WorkGroupID.z); name < (count); name += int(gl_NumWorkGroups.z))

#endif
