#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// y[n, c, i, j] = max of x[n, c, i', j'] over the pixels from (i, j) to the border, along a row or a column:
// direction top: i' >= i; bottom: i' <= i; left: j' >= j; right: j' <= j. H. Law, J. Deng, "CornerNet", 2018, eq. 6.
// C4: [N][ceil(C/4)][H][W] of vec4. One invocation walks one line of pixels (four channels of it) from the border.
// `lines` of `line_count` each per channel block; pixel k of a line lies at first + line * line_stride + k * step.
#include "tensor.glsl"
#include "grid.glsl"

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int lines;
    int line_count;
    int line_stride;
    int map;
    int first;
    int step;
    int steps;
};

void main() {
    FOR_Z(n, batches) {
        FOR_X(line, lines) {
            ivec2 place = divide(line, line_count);
            int start = place.x * map + place.y * line_stride + first;
            vec4 most = LOAD(x, x_offset + n * x_batch + start);
            for (int k = 0; k < steps; k++) {
                int pixel = start + k * step;
                vec4 v = LOAD(x, x_offset + n * x_batch + pixel);
                // a NaN stays, as in numpy and PyTorch
                most = mix(most, v, bvec4(uvec4(greaterThan(v, most)) | uvec4(isnan(v))));
                y[y_offset + n * y_batch + pixel] = most;
            }
        }
    }
}
