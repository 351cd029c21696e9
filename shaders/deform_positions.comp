#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// Where the taps of a deformable convolution sample:
//   y[n][d*taps + k][p] = vec4(row, column, factor, 0), (row, column) = p*stride - pad + k*dilation + offset[n][d][k][:][p]
// offsets: C4, from channel offset_channel on two channels (row, column) for each pair of offset group d and tap k;
// mask: C4, from channel mask_channel on a channel for each pair: factor = activation(mask), 1 without it. y: [n][pair][pixel] of vec4. One invocation: one pair at one pixel.
// Offsets come from the model's data: positions that see nothing of the map (NaN too) become -1, -1 with factor 0, so
// that what reads them can convert to int.
#include "tensor.glsl"
#include "grid.glsl"
#include "activations.glsl"

layout(constant_id = 1) const bool MODULATED = true;
layout(constant_id = 2) const bool EVEN = true; // offset_channel is: both channels are in one vec4
layout(constant_id = 3) const int ACTIVATION = ACT_NONE;

READ_VEC4(0, offsets);
READ_VEC4(1, mask);
WRITE_BUFFER(2, y, vec4);
layout(push_constant) uniform Push {
    int offsets_offset, offsets_batch, mask_offset, mask_batch, y_offset;
    int batches, pairs, offset_channel, mask_channel;
    float alpha, beta;
    int kernel[2], in_size[2], out_size[2], stride[2], dilation[2], pad[2];
};

void main() {
    int pixels = out_size[0] * out_size[1];
    FOR_Z(n, batches) FOR_Y(pair, pairs) {
        int tap = pair % (kernel[0] * kernel[1]);
        int ky = tap / kernel[1];
        int kx = tap - ky * kernel[1];
        int row = offset_channel + 2 * pair, column = row + 1, factor_at = mask_channel + pair;
        int row_plane = offsets_offset + n * offsets_batch + (row >> 2) * pixels;
        int column_plane = offsets_offset + n * offsets_batch + (column >> 2) * pixels;
        int mask_plane = mask_offset + n * mask_batch + (factor_at >> 2) * pixels;
        FOR_X(p, pixels) {
            int oy = p / out_size[1];
            int ox = p - oy * out_size[1];
            vec4 first = LOAD(offsets, row_plane + p);
            vec4 second = EVEN ? first : LOAD(offsets, column_plane + p);
            vec2 at = vec2(float(oy * stride[0] - pad[0] + ky * dilation[0]),
                           float(ox * stride[1] - pad[1] + kx * dilation[1]));
            at += vec2(first[row & 3], second[column & 3]);
            float factor = 1.0;
            if (MODULATED)
                factor = activate(ACTIVATION, vec4(LOAD(mask, mask_plane + p)[factor_at & 3]), alpha, beta).x;
            // false for NaN
            bool inside = at.x > -1.0 && at.x < float(in_size[0]) && at.y > -1.0 && at.y < float(in_size[1]);
            y[y_offset + (n * pairs + pair) * pixels + p] = inside ? vec4(at, factor, 0.0) : vec4(-1.0, -1.0, 0.0, 0.0);
        }
    }
}
