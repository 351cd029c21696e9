#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// y[n][c][p] = x[n][c] interpolated at grid[n][p], for one to three spatial axes: the sum over one tap of each axis of
// the product of their weights, times x there. Taps of an axis: the nearest pixel, two neighbours (linear) or four (cubic:
// R. Keys, 1981, a = -0.75). Coordinates in [-1, 1], the last axis of x first, span the map from the first pixel's centre
// to the last's (ALIGNED), or from edge to edge.
// x, y: C4; grid: linear [n][pixel][axis]. One invocation: one pixel in `part` channel blocks, its taps computed once.
// Coordinates come from the model's data: every index is clamped to its axis, and NaN counts as outside.
#include "tensor.glsl"
#include "grid.glsl"

#define NEAREST 0
#define LINEAR 1
#define CUBIC 2
#define ZEROS 0
#define BORDER 1
#define REFLECTION 2

layout(constant_id = 1) const int MODE = LINEAR;
layout(constant_id = 2) const int PADDING = ZEROS;
layout(constant_id = 3) const bool ALIGNED = false;
layout(constant_id = 4) const int AXES = 2;
const int TAPS = MODE == NEAREST ? 1 : MODE == LINEAR ? 2 : 4;

READ_VEC4(0, x);
READ_BUFFER(1, grid, float);
WRITE_BUFFER(2, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, grid_offset, y_offset, y_batch;
    int batches, blocks, part, pixels;
    int in_size[3];
};

// a position inside the axis for one outside, by the padding mode
float bring_inside(float place, float size) {
    if (PADDING == REFLECTION) {
        float low = ALIGNED ? 0.0 : -0.5;
        float span = ALIGNED ? size - 1.0 : size;
        float distance_low = abs(place - low);
        float flips = floor(distance_low / max(span, 0.5));
        float rest = distance_low - flips * span;
        bool odd = flips - 2.0 * floor(flips * 0.5) > 0.5;
        place = low + (odd ? span - rest : rest);
    }
    return min(place > 0.0 ? place : 0.0, size - 1.0);
}

void taps(float coordinate, int count, out ivec4 index, out vec4 weight) {
    float size = float(count);
    float place = ALIGNED ? (coordinate + 1.0) * 0.5 * (size - 1.0) : ((coordinate + 1.0) * size - 1.0) * 0.5;
    // false for NaN; beyond 2^24 floats have no neighbours
    if (!(abs(place) < 16777216.0)) place = PADDING == REFLECTION ? 0.0 : place > 0.0 ? size + 4.0 : -4.0;
    if (MODE != CUBIC && PADDING != ZEROS) place = bring_inside(place, size);
    float first = MODE == NEAREST ? roundEven(place) : floor(place);
    float t = place - first;
    weight = vec4(1.0, 0.0, 0.0, 0.0);
    if (MODE == LINEAR) weight = vec4(1.0 - t, t, 0.0, 0.0);
    if (MODE == CUBIC) {
        const float a = -0.75;
        vec2 near = vec2(t, 1.0 - t);
        vec2 far = near + 1.0;
        vec2 inner = ((a + 2.0) * near - (a + 3.0)) * near * near + 1.0;
        vec2 outer = ((a * far - 5.0 * a) * far + 8.0 * a) * far - 4.0 * a;
        weight = vec4(outer.x, inner.x, inner.y, outer.y);
        first -= 1.0;
    }
    UNROLL for (int k = 0; k < TAPS; k++) {
        float at = first + float(k);
        if (MODE == CUBIC && PADDING != ZEROS) at = bring_inside(at, size);
        if (at < 0.0 || at > size - 1.0) weight[k] = 0.0;
        index[k] = int(clamp(at, 0.0, size - 1.0));
    }
}

void main() {
    FOR_Z(n, batches) FOR_Y(chunk, (blocks + part - 1) / part) FOR_X(p, pixels) {
        int from = grid_offset + (n * pixels + p) * AXES;
        ivec4 column, row = ivec4(0), slice = ivec4(0);
        vec4 column_weight, row_weight = vec4(1.0, 0.0, 0.0, 0.0), slice_weight = vec4(1.0, 0.0, 0.0, 0.0);
        taps(grid[from], in_size[2], column, column_weight);
        if (AXES > 1) taps(grid[from + 1], in_size[1], row, row_weight);
        if (AXES > 2) taps(grid[from + 2], in_size[0], slice, slice_weight);
        row *= in_size[2];
        slice *= in_size[1] * in_size[2];
        int plane = in_size[0] * in_size[1] * in_size[2];
        int last = min(blocks, (chunk + 1) * part);
        for (int block = chunk * part; block < last; block++) {
            int map = x_offset + n * x_batch + block * plane;
            vec4 total = vec4(0.0);
            UNROLL for (int c = 0; c < (AXES > 2 ? TAPS : 1); c++)
                UNROLL for (int b = 0; b < (AXES > 1 ? TAPS : 1); b++)
                    UNROLL for (int a = 0; a < TAPS; a++) {
                        float weight = slice_weight[c] * row_weight[b] * column_weight[a];
                        vec4 v = LOAD(x, map + slice[c] + row[b] + column[a]);
                        // what weighs nothing was not to be read: it may be infinite
                        if (weight != 0.0) total += v * weight;
                    }
            y[y_offset + n * y_batch + block * pixels + p] = total;
        }
    }
}
