#version 450
#extension GL_GOOGLE_include_directive : require
// y = 0 (FILL), then y[indices[i]] = x[i]: the values of a pooling put back where they were.
// Linear tensors. Indices count the elements of a tensor of spatial size `inner`, which lies at the low end of y, of
// spatial size `outer`. They come from the model's data: those outside either tensor are left out.
// One invocation: one element of y (FILL) or of x.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool FILL = false;

READ_BUFFER(0, x, float);
READ_BUFFER(1, indices, int);
WRITE_BUFFER(2, y, float);
layout(push_constant) uniform Push {
    int x_offset, indices_offset, y_offset;
    int count, maps;
    int inner[3], outer[3];
};

void main() {
    int pixels = inner[0] * inner[1] * inner[2];
    FOR_X(i, count) {
        if (FILL) {
            y[y_offset + i] = 0.0;
        } else {
            int index = indices[indices_offset + i];
            int map = index / pixels;
            int row = index / inner[2];
            int slice = row / inner[1];
            ivec3 at = ivec3(slice - map * inner[0], row - slice * inner[1], index - row * inner[2]);
            if (index >= 0 && map < maps && at.x < outer[0] && at.y < outer[1] && at.z < outer[2])
                y[y_offset + ((map * outer[0] + at.x) * outer[1] + at.y) * outer[2] + at.z] = x[x_offset + i];
        }
    }
}
