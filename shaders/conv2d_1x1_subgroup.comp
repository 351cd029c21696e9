#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; scale = off, on; result = c4, linear)
#include "convolution.glsl"
// 1x1 convolution, computed by eight lanes together: a matrix product over channels at each pixel.
//   y[n][o][p] = activation(bias[o] + sum_i weights[o][i] * x[n][i][p]), with scale = on of x[n][i][p] * scale[n][i]
// x, y, residual: C4, [n][channels/4][pixels] of vec4. Eight lanes: OUTPUT_TILE (8, 16 or 32) output channels at PARTS *
// PIXELS pixels. A lane has four of the channels, at every PARTS-th pixel; it loads its own weights and some of the
// pixels, which shuffles spread. So no lane is idle where a map has few pixels, and their number may be any.
// A workgroup is one subgroup, of any multiple of eight lanes.
// STRIDED: x's pixel of output (oy, ox) is origin + oy * row_step + ox * column_step, else that of the same number.
// Grid: x pixels / (local_size / 8 * PARTS * PIXELS), y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 32;
layout(constant_id = 2) const int PIXELS = 25;
layout(constant_id = 3) const bool STRIDED = false;
const int LANES = 8;
const int BLOCKS = OUTPUT_TILE / 4;
const int PARTS = LANES / BLOCKS;
const int LOADS = (PARTS * PIXELS + LANES - 1) / LANES;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_RESULT(3);
#if defined(SCALE_ON)
READ_VEC4(4, scale);
#endif
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int pixels, in_pixels, origin, out_width, row_step, column_step;
    int channels;
    float alpha, beta;
#if defined(SCALE_ON)
    int scale_offset, scale_batch;
#endif
};

void main() {
    int invocation = int(gl_SubgroupInvocationID);
    int eight = invocation / LANES;
    int lane = invocation - eight * LANES;
    int part = lane / BLOCKS;
    int own = lane - part * BLOCKS; // the lane's block of output channels in the tile
    int first = (int(gl_WorkGroupID.x) * (int(gl_WorkGroupSize.x) / LANES) + eight) * PARTS * PIXELS;
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);

    int x_index = x_offset + batch * x_batch + group * in_blocks * in_pixels;
    int w_index = weights_offset + int(gl_WorkGroupID.y) * (BLOCKS + in_blocks * OUTPUT_TILE);
    vec4 bias = LOAD(weights, w_index + own);
    w_index += BLOCKS + own * 4;
    // pixels past the end read the last one and are not stored
    int from[LOADS];
    UNROLL for (int l = 0; l < LOADS; l++) {
        from[l] = min(first + l * LANES + lane, pixels - 1);
        if (STRIDED) {
            int oy = from[l] / out_width;
            from[l] = origin + oy * row_step + (from[l] - oy * out_width) * column_step;
        }
    }

#if defined(SCALE_ON)
    int scale_index = scale_offset + batch * scale_batch + group * in_blocks;
#endif
    vec4 sum[PIXELS];
    UNROLL for (int p = 0; p < PIXELS; p++) sum[p] = vec4(0.0);
    for (int k = 0; k < in_blocks; k++) {
        vec4 v[LOADS];
        UNROLL for (int l = 0; l < LOADS; l++) v[l] = LOAD(x, x_index + from[l]);
#if defined(SCALE_ON)
        vec4 factor = LOAD(scale, scale_index + k);
        UNROLL for (int l = 0; l < LOADS; l++) v[l] *= factor;
#endif
        mat4 w; // columns: what an input channel gives to the four outputs
        UNROLL for (int o = 0; o < 4; o++) {
            vec4 row = LOAD(weights, w_index + o);
            UNROLL for (int c = 0; c < 4; c++) w[c][o] = row[c];
        }
        UNROLL for (int p = 0; p < PIXELS; p++) {
            int source = eight * LANES + p * PARTS % LANES + part;
            UNROLL for (int c = 0; c < 4; c++)
                ADD_PRODUCT(sum[p], vec4(subgroupShuffle(v[p * PARTS / LANES][c], uint(source))), w[c]);
        }
        x_index += in_pixels;
        w_index += OUTPUT_TILE;
    }

    int block = tile * BLOCKS + own;
    if (block >= out_blocks) return;
    int y_start = y_offset + batch * y_batch;
    int residual_start = residual_offset + batch * residual_batch;
    UNROLL for (int p = 0; p < PIXELS; p++) {
        int at = first + p * PARTS + part;
        if (at < pixels) {
            vec4 v = bias + sum[p];
            FINISH_AT(v, y_start, residual_start, group * out_blocks + block, pixels, at)
        }
    }
}
