#version 450
#extension GL_GOOGLE_include_directive : require
// y[t, b, i] = x[lengths[b] - 1 - t, b, i] for t < lengths[b], else x[t, b, i]; with `batch_first` time and batch change
// places. Linear; elements are moved as bits. One invocation moves one element. Lengths come from the model's data and
// are clamped to the time axis.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool batch_first = false;

READ_BUFFER(0, x, int);
READ_BUFFER(1, lengths, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int lengths_offset;
    int y_offset;
    int times;
    int batches;
    int inner;
};

void main() {
    FOR_Z(t, times) FOR_Y(b, batches) {
        int length = clamp(lengths[lengths_offset + b], 0, times);
        int from = t < length ? length - 1 - t : t;
        int source = (batch_first ? b * times + from : from * batches + b) * inner;
        int target = (batch_first ? b * times + t : t * batches + b) * inner;
        FOR_X(i, inner) y[y_offset + target + i] = x[x_offset + source + i];
    }
}
