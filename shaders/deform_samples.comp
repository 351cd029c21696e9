#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// What the taps of a deformable convolution see, as the channels of a map for a 1x1 convolution:
//   y[n][block][k][p] = factor[n][d(block)][k][p] * x[n][block] at position[n][d(block)][k][p]
// where x between pixels is bilinear, and zero beyond the map. x: C4, part_blocks channel blocks for each offset group d;
// positions: [n][offset group][tap, pixel] of vec4(row, column, factor, 0), see deform_positions.comp; y: vec4s.
// One invocation: DEPTH blocks of one offset group at one tap and pixel. Grid: x taps and pixels, y DEPTH blocks (offset
// group after group), z batch.
#include "tensor.glsl"
#include "grid.glsl"
#include "bilinear.glsl"

layout(constant_id = 1) const int DEPTH = 8;

READ_VEC4(0, x);
READ_VEC4(1, positions);
WRITE_BUFFER(2, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, positions_offset, y_offset;
    int batches, parts;
    int blocks, part_blocks; // channel blocks of all, and of one offset group
    int height, width;
    int places;              // taps times pixels
};

void main() {
    int plane = height * width;
    int pieces = (part_blocks + DEPTH - 1) / DEPTH;
    FOR_Z(n, batches) FOR_Y(row, parts * pieces) {
        int part = row / pieces;
        int first = (row - part * pieces) * DEPTH;
        int count = min(DEPTH, part_blocks - first);
        int block = part * part_blocks + first;
        FOR_X(i, places) {
            ivec4 at;
            vec4 weight;
            vec4 place = LOAD(positions, positions_offset + (n * parts + part) * places + i);
            bilinear(place.xyz, height, width, at, weight);
            int from = x_offset + n * x_batch + block * plane;
            int to = y_offset + (n * blocks + block) * places + i;
            for (int k = 0; k < count; k++) {
                vec4 v;
                SAMPLE(v, x, from, at, weight)
                y[to] = v;
                from += plane;
                to += places;
            }
        }
    }
}
