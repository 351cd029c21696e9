#version 450
#extension GL_GOOGLE_include_directive : require
// y[d, j] = coordinate d of the element of x that is the j-th other than zero, in order; y has room for `room` of them.
// `ends` holds the running totals that count_nonzero.comp and cumulate.comp found per piece of x; found[0] = the last.
// Linear. One invocation looks through one piece.
#include "tensor.glsl"
#include "grid.glsl"

#define MOST_DIMS 8

layout(constant_id = 1) const bool is_float = false;
layout(constant_id = 2) const int rank = 1;

READ_BUFFER(0, x, int);
READ_BUFFER(1, ends, int);
WRITE_BUFFER(2, y, int);
WRITE_BUFFER(3, found, int);
layout(push_constant) uniform Push {
    int x_offset;
    int ends_offset;
    int y_offset;
    int found_offset;
    int count;
    int piece;
    int pieces;
    int room;
    int size[MOST_DIMS];
};

void main() {
    int mask = is_float ? 0x7fffffff : ~0;
    FOR_X(p, pieces) {
        int end = min((p + 1) * piece, count);
        int place = p == 0 ? 0 : ends[ends_offset + p - 1];
        for (int i = p * piece; i < end; i++) {
            if ((x[x_offset + i] & mask) == 0) continue;
            int rest = i;
            UNROLL for (int d = MOST_DIMS - 1; d >= 0; d--) {
                if (d >= rank) continue;
                int next = d == 0 ? 0 : rest / size[d];
                y[y_offset + d * room + place] = rest - next * size[d];
                rest = next;
            }
            place++;
        }
        if (p == pieces - 1) found[found_offset] = place;
    }
}
