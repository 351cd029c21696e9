#version 450
#extension GL_GOOGLE_include_directive : require
// counts[p] = how many of the elements [p * piece, (p + 1) * piece) of x are not zero. Linear. One invocation counts one
// piece.
#include "tensor.glsl"
#include "grid.glsl"

// the sign of a float's zero does not count
layout(constant_id = 1) const bool is_float = false;

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, counts, int);
layout(push_constant) uniform Push {
    int x_offset;
    int counts_offset;
    int count;
    int piece;
    int pieces;
};

void main() {
    int mask = is_float ? 0x7fffffff : ~0;
    FOR_X(p, pieces) {
        int end = min((p + 1) * piece, count), total = 0;
        for (int i = p * piece; i < end; i++) total += (x[x_offset + i] & mask) != 0 ? 1 : 0;
        counts[counts_offset + p] = total;
    }
}
