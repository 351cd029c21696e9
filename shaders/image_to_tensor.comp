#version 450
#extension GL_GOOGLE_include_directive : require
// y[n][c][p] = x[n][p][source[c]] * factor[c] + offset[c]: pixels of `channels` bytes (1 to 4), N * H * W of them one
// after the other, four bytes a word, to C4 with its only channel block. `table` holds factor, offset and source, one
// row each. One invocation converts four pixels: `channels` words in, four vec4s out.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int channels = 3;

READ_BUFFER(0, x, int);
READ_BUFFER(1, table, float);
WRITE_BUFFER(2, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int table_offset;
    int y_offset;
    int y_batch;
    int count;  // pixels of all images
    int pixels; // of one
};

void main() {
    vec4 factor = vec4(0.0), offset = vec4(0.0);
    ivec4 source = ivec4(0);
    UNROLL for (int c = 0; c < channels; c++) {
        factor[c] = table[table_offset + c];
        offset[c] = table[table_offset + channels + c];
        source[c] = clamp(int(table[table_offset + 2 * channels + c]), 0, channels - 1);
    }
    FOR_X(quad, (count + 3) / 4) {
        float bytes[16];
        UNROLL for (int w = 0; w < channels; w++) {
            int word = x[x_offset + quad * channels + w];
            UNROLL for (int k = 0; k < 4; k++) bytes[w * 4 + k] = float((word >> (8 * k)) & 255);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            vec4 pixel = vec4(0.0), v = vec4(0.0);
            UNROLL for (int c = 0; c < channels; c++) pixel[c] = bytes[i * channels + c];
            UNROLL for (int c = 0; c < channels; c++) {
                int s = source[c];
                v[c] = s == 0 ? pixel.x : s == 1 ? pixel.y : s == 2 ? pixel.z : pixel.w;
            }
            int p = quad * 4 + i;
            if (p < count) {
                ivec2 place = divide(p, pixels);
                y[y_offset + place.x * y_batch + place.y] = v * factor + offset;
            }
        }
    }
}
