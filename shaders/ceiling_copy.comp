#version 450
#extension GL_GOOGLE_include_directive : require
// How fast a device moves memory: y[i] = x[i] in vec4. One invocation moves every (number of invocations)th.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, vec4);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int count;
};

void main() {
    FOR_X(i, count) y[i] = x[i];
}
