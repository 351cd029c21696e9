#version 450
#extension GL_GOOGLE_include_directive : require
// y = cache, but y[b, m, writes[b] + s, i] = update[b, m, s, i] along the sequence axis; with `circular` the place wraps
// around. Linear; elements are moved as bits. One invocation moves one element. Writes come from the model's data: they
// are clamped so that the update lies inside, or wrapped.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool circular = false;

READ_BUFFER(0, cache, int);
READ_BUFFER(1, update, int);
READ_BUFFER(2, writes, int);
WRITE_BUFFER(3, y, int);
layout(push_constant) uniform Push {
    int cache_offset;
    int update_offset;
    int writes_offset;
    int y_offset;
    int batches;
    int middle;
    int room;   // of the sequence axis
    int length; // of the update along it
    int inner;
};

void main() {
    FOR_Z(b, batches) {
        int first = writes[writes_offset + b];
        first = circular ? first - (first / room) * room : clamp(first, 0, room - length);
        if (first < 0) first += room;
        FOR_Y(row, middle * room) {
            int m = row / room;
            int s = row - m * room - first;
            if (circular && s < 0) s += room;
            bool inside = s >= 0 && s < length;
            int to = (b * middle * room + row) * inner;
            int from = ((b * middle + m) * length + s) * inner;
            FOR_X(i, inner) y[y_offset + to + i] = inside ? update[update_offset + from + i] : cache[cache_offset + to + i];
        }
    }
}
