#version 450
#extension GL_GOOGLE_include_directive : require
// Pieces of `tile` elements of each row of x, sorted: the best `kept` of each piece as pairs (key, index in the row),
// keys first and then, `pairs_plane` later, indices. Of equal elements the one with the lower index comes first.
// Element i of row (o, c) lies at (o * length + i) * inner + c. One workgroup sorts one piece: every element's place is
// the number of elements that come before it (all lanes read the same one at a time, and nothing waits but once).
#include "tensor.glsl"
#include "grid.glsl"
#include "indexing.glsl"

#define LARGEST_TILE 1024

layout(constant_id = 1) const int tile = 256;
layout(constant_id = 2) const bool is_float = true;
layout(constant_id = 3) const bool ascending = false;

shared int tile_keys[LARGEST_TILE];

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, pairs, int);
layout(push_constant) uniform Push {
    int x_offset;
    int pairs_offset;
    int pairs_plane;
    int rows;
    int length;
    int inner;
    int pieces; // per row
    int kept;
};

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Y(row, rows) for (int piece = int(gl_WorkGroupID.x); piece < pieces; piece += int(gl_NumWorkGroups.x)) {
        int o = row / inner;
        int first = piece * tile;
        int count = min(tile, length - first);
        int from = x_offset + (o * length + first) * inner + row - o * inner;
        barrier();
        for (int i = lane; i < count; i += lanes)
            tile_keys[i] = sort_key(x[from + i * inner], is_float, ascending, false);
        barrier();
        int to = pairs_offset + (row * pieces + piece) * kept;
        for (int i = lane; i < count; i += lanes) {
            int key = tile_keys[i];
            int place = 0;
            for (int j = 0; j < i; j++) place += tile_keys[j] >= key ? 1 : 0;
            for (int j = i + 1; j < count; j++) place += tile_keys[j] > key ? 1 : 0;
            if (place < kept) {
                pairs[to + place] = key;
                pairs[to + pairs_plane + place] = first + i;
            }
        }
    }
}
