#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// y[o] = (sum over k of |x[o * stride - pad + k * dilation]|^p)^(1/p), for one to three spatial dimensions; taps outside
// the input add nothing. C4: x is [N][C/4][D*H][W] of vec4, y likewise. One invocation computes one vec4.
// p is a specialization constant: 1 and 2 need no power, other whole numbers up to 8 are multiplied out.
#include "binary_functions.glsl"
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const float p = 2.0;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, y_offset, y_batch;
    int batches, channels;
    int in_size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
};

vec4 raised(vec4 v) {
    v = abs(v);
    if (p == 1.0) return v;
    if (p != floor(p) || p < 1.0 || p > 8.0) return power(v, vec4(p));
    vec4 result = v;
    for (int k = 1; k < int(p); k++) result *= v;
    return result;
}

void main() {
    FOR_Z(n, batches) FOR_Y(block, (channels + 3) / 4) {
        int base = x_offset + n * x_batch + block * in_size[0] * in_size[1] * in_size[2];
        int to = y_offset + n * y_batch + block * out_size[0] * out_size[1] * out_size[2];
        FOR_X(i, out_size[0] * out_size[1] * out_size[2]) {
            int row = i / out_size[2];
            int oz = row / out_size[1];
            ivec3 start = ivec3(oz, row - oz * out_size[1], i - row * out_size[2]);
            UNROLL for (int a = 0; a < 3; a++) start[a] = start[a] * stride[a] - pad[a];
            vec4 total = vec4(0.0);
            // one loop: three, one in the other, take lavapipe 15 % longer
            ivec3 k = ivec3(0);
            for (int taps = kernel[0] * kernel[1] * kernel[2]; taps > 0; taps--) {
                ivec3 at = start + k * ivec3(dilation[0], dilation[1], dilation[2]);
                ivec3 near = clamp(at, ivec3(0), ivec3(in_size[0], in_size[1], in_size[2]) - 1);
                vec4 v = LOAD(x, base + (near.x * in_size[1] + near.y) * in_size[2] + near.z);
                total += at == near ? raised(v) : vec4(0.0);
                bool end_x = k.z == kernel[2] - 1, end_y = end_x && k.y == kernel[1] - 1;
                k = ivec3(end_y ? k.x + 1 : k.x, end_y ? 0 : end_x ? k.y + 1 : k.y, end_x ? 0 : k.z + 1);
            }
            vec4 root = total;
            if (p == 2.0) root = sqrt(total);
            else if (p != 1.0) root = power(total, vec4(1.0 / p));
            y[to + i] = keep_channels(root, block, channels);
        }
    }
}
