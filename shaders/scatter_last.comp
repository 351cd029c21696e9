#version 450
#extension GL_GOOGLE_include_directive : require
// last[target] = the place of the target's last update in a list sorted by target, for `last` set to -1 before.
// One invocation looks at one entry of the list.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, keys, int); // the targets' complements: sort_tiles.comp's keys of ascending ints
WRITE_BUFFER(1, last, int);
layout(push_constant) uniform Push {
    int keys_offset;
    int last_offset;
    int updates;
};

void main() {
    FOR_X(p, updates) {
        int key = keys[keys_offset + p];
        if (p == updates - 1 || keys[keys_offset + p + 1] != key) last[last_offset + ~key] = p;
    }
}
