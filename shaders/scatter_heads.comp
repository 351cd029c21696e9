#version 450
#extension GL_GOOGLE_include_directive : require
// heads[target] = where the updates of that target begin in a list sorted by target, for heads set to -1 before.
// One invocation looks at one entry of the list.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, sorted, int); // keys: the targets' complements, as sort_tiles.comp makes them of ascending ints
WRITE_BUFFER(1, heads, int);
layout(push_constant) uniform Push {
    int sorted_offset;
    int heads_offset;
    int updates;
};

void main() {
    FOR_X(u, updates) {
        int key = sorted[sorted_offset + u];
        if (u == 0 || sorted[sorted_offset + u - 1] != key) heads[heads_offset + ~key] = u;
    }
}
