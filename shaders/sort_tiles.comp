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

layout(constant_id = 1) const int tile = 256; // a multiple of the lanes
layout(constant_id = 2) const bool is_float = true;
layout(constant_id = 3) const bool ascending = false;

shared ivec4 tile_keys[LARGEST_TILE / 4];

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

int count(bvec4 v) { return int(v.x) + int(v.y) + int(v.z) + int(v.w); }

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Y(row, rows) for (int piece = int(gl_WorkGroupID.x); piece < pieces; piece += int(gl_NumWorkGroups.x)) {
        int o = row / inner;
        int first = piece * tile;
        int from = x_offset + (o * length + first) * inner + row - o * inner;
        int left = length - first;
        barrier();
        // places without element hold the last of all keys
        for (int i = lane; i < tile; i += lanes)
            tile_keys[i / 4][i & 3] =
                i < left ? sort_key(x[from + i * inner], is_float, ascending, false) : int(0x80000000);
        barrier();
        int to = pairs_offset + (row * pieces + piece) * kept;
        for (int base = 0; base < tile; base += lanes) {
            int i = base + lane;
            int key = tile_keys[i / 4][i & 3];
            int place = 0;
            // all lanes' elements lie behind these, before the last, and between in turn
            for (int j = 0; j < base / 4; j++) place += count(greaterThanEqual(tile_keys[j], ivec4(key)));
            for (int j = base / 4; j < (base + lanes) / 4; j++) {
                bvec4 before = lessThan(ivec4(0, 1, 2, 3), ivec4(i - j * 4));
                ivec4 others = tile_keys[j];
                place += count(mix(greaterThan(others, ivec4(key)), greaterThanEqual(others, ivec4(key)), before));
            }
            for (int j = (base + lanes) / 4; j < tile / 4; j++)
                place += count(greaterThan(tile_keys[j], ivec4(key)));
            if (i < left && place < kept) {
                pairs[to + place] = key;
                pairs[to + pairs_plane + place] = first + i;
            }
        }
    }
}
