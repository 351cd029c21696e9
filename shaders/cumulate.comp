#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(dtype = float, int; lanes = shared_row, own_row)
// y_i = the sum, or the product, of x_j over all j <= i of a row; with `exclusive` over j < i; with `reverse` over the j
// from the other end. Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step; linear.
// lanes = shared_row: one workgroup computes one row, each lane a piece of it, knowing the totals of the pieces before.
// lanes = own_row: one invocation computes one row, neighbouring lanes those of neighbouring c.
#include "tensor.glsl"
#include "grid.glsl"

#define MOST_LANES 64

layout(constant_id = 1) const bool product = false;
layout(constant_id = 2) const bool exclusive = false;
layout(constant_id = 3) const bool reverse = false;

READ_BUFFER(0, x, ELEMENT);
WRITE_BUFFER(1, y, ELEMENT);
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

ELEMENT combine(ELEMENT a, ELEMENT b) { return product ? a * b : a + b; }
ELEMENT start() { return ELEMENT(product ? 1 : 0); }

// the running total over steps [first, end) of a row, written if `keep`
ELEMENT walk(int row, int first, int end, ELEMENT total, bool keep) {
    for (int s = first; s < end; s++) {
        int at = row + (reverse ? length - 1 - s : s) * step;
        ELEMENT next = combine(total, x[x_offset + at]);
        if (keep) y[y_offset + at] = exclusive ? total : next;
        total = next;
    }
    return total;
}

#if defined(LANES_SHARED_ROW)
shared ELEMENT piece_totals[MOST_LANES];

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    int piece = (length + lanes - 1) / lanes;
    int first = min(lane * piece, length), end = min(first + piece, length);
    FOR_Y(o, outer) for (int c = int(gl_WorkGroupID.x); c < rows; c += int(gl_NumWorkGroups.x)) {
        int row = o * outer_stride + c * row_stride;
        barrier();
        piece_totals[lane] = walk(row, first, end, start(), false);
        barrier();
        ELEMENT total = start();
        for (int before = 0; before < lane; before++) total = combine(total, piece_totals[before]);
        walk(row, first, end, total, true);
    }
}
#else
void main() {
    FOR_Y(o, outer) FOR_X(c, rows) walk(o * outer_stride + c * row_stride, 0, length, start(), true);
}
#endif
