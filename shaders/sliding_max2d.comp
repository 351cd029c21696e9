#version 450
#extension GL_GOOGLE_include_directive : require
// y[i][j] = max of x[i - pad_y .. i - pad_y + taps_y - 1][j - pad_x .. j - pad_x + taps_x - 1] of every map, at stride 1,
// for windows small enough that one dispatch beats two (along W, then along H, by sliding_max).
// C4: maps [H][W] of vec4. One invocation computes `rows` rows of four neighbours: it takes the maxima of four windows
// along each row of x once, and every row of y that holds them joins them.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int taps_y = 5;
layout(constant_id = 2) const int taps_x = 5;
layout(constant_id = 3) const int rows = 2;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int blocks;
    int height;
    int width;
    int pad_y;
    int pad_x;
};

void main() {
    int across = (width + 3) / 4;
    int pixels = height * width;
    FOR_Z(n, batches) FOR_Y(block, blocks) FOR_X(i, across * ((height + rows - 1) / rows)) {
        ivec2 place = divide(i, across);
        int top = place.x * rows;
        int first = place.y * 4;
        int from = x_offset + n * x_batch + block * pixels;
        vec4 best[rows * 4];
        UNROLL for (int r = 0; r < rows + taps_y - 1; r++) {
            // a position outside the map is replaced by the nearest inside, which the window holds as well
            int line = from + clamp(top - pad_y + r, 0, height - 1) * width;
            vec4 v[taps_x + 3];
            UNROLL for (int k = 0; k < taps_x + 3; k++) v[k] = LOAD(x, line + clamp(first - pad_x + k, 0, width - 1));
            vec4 along[4];
            if (taps_x >= 4) {
                // what all four windows hold is reduced once
                vec4 middle = v[3];
                UNROLL for (int k = 4; k < taps_x; k++) middle = max(middle, v[k]);
                vec4 left = max(v[1], v[2]), right = max(v[taps_x], v[taps_x + 1]);
                along[0] = max(middle, max(v[0], left));
                along[1] = max(middle, max(left, v[taps_x]));
                along[2] = max(middle, max(v[2], right));
                along[3] = max(middle, max(right, v[taps_x + 2]));
            } else {
                UNROLL for (int j = 0; j < 4; j++) {
                    along[j] = v[j];
                    UNROLL for (int k = 1; k < taps_x; k++) along[j] = max(along[j], v[j + k]);
                }
            }
            UNROLL for (int s = 0; s < rows; s++) {
                if (r == s) UNROLL for (int j = 0; j < 4; j++) best[s * 4 + j] = along[j];
                if (r > s && r < s + taps_y)
                    UNROLL for (int j = 0; j < 4; j++) best[s * 4 + j] = max(best[s * 4 + j], along[j]);
            }
        }
        int to = y_offset + n * y_batch + block * pixels + top * width + first;
        UNROLL for (int s = 0; s < rows; s++) {
            if (top + s < height) {
                y[to + s * width] = best[s * 4];
                if (first + 1 < width) y[to + s * width + 1] = best[s * 4 + 1];
                if (first + 2 < width) y[to + s * width + 2] = best[s * 4 + 2];
                if (first + 3 < width) y[to + s * width + 3] = best[s * 4 + 3];
            }
        }
    }
}
