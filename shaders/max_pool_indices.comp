#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(dtype = float, int)
// y[o] = max over k of x[o * stride - pad + k * dilation] and, with INDICES, where in the whole of x that was: the form of
// MaxPool that pool.comp lacks, on linear tensors and for integers too. One to three spatial axes; of equal values the
// first counts. Indices count row-major, or with COLUMN_MAJOR the first spatial axis fastest. One invocation: one output.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool INDICES = true;
layout(constant_id = 2) const bool COLUMN_MAJOR = false;

READ_BUFFER(0, x, ELEMENT);
WRITE_BUFFER(1, y, ELEMENT);
WRITE_BUFFER(2, indices, int);
layout(push_constant) uniform Push {
    int x_offset, y_offset, indices_offset;
    int maps;
    int lowest; // the bits of the result of a window without taps
    int in_size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
};

void main() {
    int pixels = in_size[0] * in_size[1] * in_size[2];
    int out_pixels = out_size[0] * out_size[1] * out_size[2];
    FOR_Y(map, maps) FOR_X(i, out_pixels) {
        int row = i / out_size[2];
        int oz = row / out_size[1];
        ivec3 start = ivec3(oz, row - oz * out_size[1], i - row * out_size[2]);
        UNROLL for (int a = 0; a < 3; a++) start[a] = start[a] * stride[a] - pad[a];
#if defined(DTYPE_INT)
        int best = lowest;
#else
        float best = intBitsToFloat(lowest);
#endif
        int place = -1;
        for (int kz = 0; kz < kernel[0]; kz++) {
            int iz = start.x + kz * dilation[0];
            if (uint(iz) >= uint(in_size[0])) continue;
            for (int ky = 0; ky < kernel[1]; ky++) {
                int iy = start.y + ky * dilation[1];
                if (uint(iy) >= uint(in_size[1])) continue;
                for (int kx = 0; kx < kernel[2]; kx++) {
                    int ix = start.z + kx * dilation[2];
                    if (uint(ix) >= uint(in_size[2])) continue;
                    ELEMENT v = x[x_offset + map * pixels + (iz * in_size[1] + iy) * in_size[2] + ix];
                    if (place >= 0 && !(v > best)) continue;
                    best = v;
                    place = COLUMN_MAJOR ? iz + in_size[0] * (iy + in_size[1] * ix)
                                         : (iz * in_size[1] + iy) * in_size[2] + ix;
                }
            }
        }
        y[y_offset + map * out_pixels + i] = best;
        if (INDICES) indices[indices_offset + map * out_pixels + i] = place < 0 ? 0 : map * pixels + place;
    }
}
