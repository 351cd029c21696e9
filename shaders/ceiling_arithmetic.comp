#version 450
#extension GL_GOOGLE_include_directive : require
// How fast a device multiplies and adds: two or four independent chains of x <- x * factor + term in vec4. One
// invocation takes STEPS steps in each of `rounds` turns and stores the sum of its chains, so that none can be left
// out: 8 * chains * STEPS * rounds operations. Nothing of this is read from memory.
#include "tensor.glsl"

layout(local_size_x_id = 0) in;
// four chains instead of two
layout(constant_id = 1) const bool four = false;
// whether one operation is asked for, or a product and a sum that the compiler may join
layout(constant_id = 2) const bool fused = false;
const int STEPS = 32;

WRITE_BUFFER(0, y, vec4);
layout(push_constant) uniform Push {
    int rounds;
    float factor;
    float term;
};

vec4 next(vec4 x, vec4 a, vec4 b) { return fused ? fma(x, a, b) : x * a + b; }

void main() {
    int i = int(gl_GlobalInvocationID.x);
    vec4 a = vec4(factor), b = vec4(term);
    // not an array: some compilers would keep it in memory
    vec4 x = vec4(float(i)), z = x + 0.25, u = x + 0.5, v = x + 0.75;
    for (int round = 0; round < rounds; round++) {
        // not written out: SwiftShader's compiler would take all memory for chains of that length
        for (int step = 0; step < STEPS; step++) {
            x = next(x, a, b);
            z = next(z, a, b);
            if (four) {
                u = next(u, a, b);
                v = next(v, a, b);
            }
        }
    }
    y[i] = x + z + u + v;
}
