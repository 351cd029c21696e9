#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(lanes = shared_row, own_row)
// y[o, c] = the i of the largest, or with `ascending` the smallest, element i of row (o, c) of x, which lies at
// o * outer_stride + c * row_stride + i * step; the first of equal ones, or the last. Linear.
// lanes = shared_row: one workgroup computes one y, its lanes share the row. lanes = own_row: one invocation
// computes one y, neighbouring lanes those of neighbouring c.
#include "tensor.glsl"
#include "grid.glsl"
#include "indexing.glsl"
// reduced are pairs (key, index)
#undef ELEMENT
#define ELEMENT ivec2
#include "workgroup_reduction.glsl"

layout(constant_id = 1) const bool is_float = true;
layout(constant_id = 2) const bool ascending = false;
layout(constant_id = 3) const bool select_last = false;
layout(constant_id = 4) const bool nan_first = true;

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int outer;
    int outer_stride;
    int rows; // per o
    int row_stride;
    int length;
    int step;
};

ivec2 better(ivec2 a, ivec2 b) {
    bool lower = (a.y < b.y) != select_last;
    return a.x > b.x || (a.x == b.x && lower) ? a : b;
}

// the best of elements first, first + stride... of a row; element 0 stands in where there are none
ivec2 best_of(int from, int first, int stride) {
    ivec2 best = ivec2(sort_key(x[from], is_float, ascending, nan_first), 0);
    for (int i = first; i < length; i += stride)
        best = better(best, ivec2(sort_key(x[from + i * step], is_float, ascending, nan_first), i));
    return best;
}

#if defined(LANES_SHARED_ROW)
void main() {
    int lane = int(gl_LocalInvocationID.x);
    FOR_Y(o, outer) for (int c = int(gl_WorkGroupID.x); c < rows; c += int(gl_NumWorkGroups.x)) {
        ivec2 best = best_of(x_offset + o * outer_stride + c * row_stride, lane, int(gl_WorkGroupSize.x));
        REDUCE_LANES(best, better)
        if (lane == 0) y[y_offset + o * rows + c] = best.y;
    }
}
#else
void main() {
    FOR_Y(o, outer) FOR_X(c, rows)
        y[y_offset + o * rows + c] = best_of(x_offset + o * outer_stride + c * row_stride, 1, 1).y;
}
#endif
