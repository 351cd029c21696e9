#version 450
#extension GL_GOOGLE_include_directive : require
// y[i][j] = x[i / scale_h][j / scale_w]: nearest-neighbour enlargement by whole factors.
// C4 maps of vec4. One invocation copies one vec4 of x to scale_h * scale_w places of y.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int scale_h = 2;
layout(constant_id = 2) const int scale_w = 2;

READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int maps;
    int height;
    int width;
};

void main() {
    int out_w = width * scale_w;
    FOR_Z(n, batches) FOR_Y(map, maps) {
        int from = x_offset + n * x_batch + map * height * width;
        int to = y_offset + n * y_batch + map * height * scale_h * out_w;
        FOR_X(i, height * width) {
            ivec2 place = divide(i, width);
            int row = place.x;
            int column = place.y;
            vec4 v = LOAD(x, from + i);
            int corner = to + row * scale_h * out_w + column * scale_w;
            for (int a = 0; a < scale_h; a++)
                for (int b = 0; b < scale_w; b++) y[corner + a * out_w + b] = v;
        }
    }
}
