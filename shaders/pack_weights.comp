#version 450
#extension GL_GOOGLE_include_directive : require
// Weights that the model computes, packed for the convolution kernels as conv_weights.py packs constant ones.
// x: linear, (groups * out_channels, in_channels, taps), or transposed (groups * in_channels, out_channels, taps).
//   TILED:  y[group][tile of outputs][bias | input block][tap][output] of vec4: four inputs of one output, `tile` outputs
//   else:   y[block of 4 outputs][bias | input][tap] of vec4: one input of four outputs
// What lies beyond the channels is zero. One invocation packs one vec4. Grid: x vec4s of a row, y rows (tiles or blocks).
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool TILED = true;
layout(constant_id = 2) const bool TRANSPOSED = false;
layout(constant_id = 3) const bool BIASED = false;

READ_BUFFER(0, x, float);
READ_BUFFER(1, bias, float);
WRITE_BUFFER(2, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, bias_offset, y_offset;
    int groups, out_channels, in_channels; // channels of one group
    int taps, tile;
};

float weight_at(int group, int o, int i, int tap) {
    if (group >= groups || o >= out_channels || i >= in_channels) return 0.0;
    int row = TRANSPOSED ? (group * in_channels + i) * out_channels + o : (group * out_channels + o) * in_channels + i;
    return x[x_offset + row * taps + tap];
}

float bias_at(int group, int o) {
    return BIASED && group < groups && o < out_channels ? bias[bias_offset + group * out_channels + o] : 0.0;
}

void main() {
    int per_group = TILED ? (out_channels + tile - 1) / tile : 1;
    int rows = TILED ? groups * per_group : (groups * out_channels + 3) / 4;
    int head = TILED ? tile / 4 : 1;
    int length = head + (TILED ? (in_channels + 3) / 4 * tile : in_channels) * taps;
    FOR_Y(row, rows) FOR_X(j, length) {
        vec4 v;
        int k = j - head;
        if (TILED) {
            int group = row / per_group;
            int first = (row - group * per_group) * tile;
            int place = k / tile; // block and tap
            int block = place / taps;
            UNROLL for (int c = 0; c < 4; c++)
                v[c] = k < 0 ? bias_at(group, first + j * 4 + c)
                             : weight_at(group, first + k - place * tile, block * 4 + c, place - block * taps);
        } else {
            UNROLL for (int c = 0; c < 4; c++) {
                int group = (row * 4 + c) / out_channels;
                int o = row * 4 + c - group * out_channels;
                v[c] = k < 0 ? bias_at(group, o) : weight_at(group, o, k / taps, k % taps);
            }
        }
        y[y_offset + row * length + j] = v;
    }
}
