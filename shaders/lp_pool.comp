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
            for (int kz = 0; kz < kernel[0]; kz++) {
                int iz = start.x + kz * dilation[0];
                if (uint(iz) >= uint(in_size[0])) continue;
                for (int ky = 0; ky < kernel[1]; ky++) {
                    int iy = start.y + ky * dilation[1];
                    if (uint(iy) >= uint(in_size[1])) continue;
                    for (int kx = 0; kx < kernel[2]; kx++) {
                        int ix = start.z + kx * dilation[2];
                        if (uint(ix) < uint(in_size[2]))
                            total += raised(LOAD(x, base + (iz * in_size[1] + iy) * in_size[2] + ix));
                    }
                }
            }
            vec4 root = total;
            if (p == 2.0) root = sqrt(total);
            else if (p != 1.0) root = power(total, vec4(1.0 / p));
            y[to + i] = keep_channels(root, block, channels);
        }
    }
}
