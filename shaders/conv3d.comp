#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; shuffle = on, off)
#include "convolution.glsl"
// Convolution over three spatial axes, and its transposed form; groups of whole channel blocks.
//   plain:      y[n][o][p] = activation(bias[o] + sum_{i,k} weights[o][i][k] * x[n][i][p*stride - pad + k*dilation])
//   TRANSPOSED: the input position is (p + pad - k*dilation) / stride, over the taps for which it is whole and inside
// x, y, residual: C4 with D folded into H. One invocation: OUTPUT_TILE channels at PIXELS outputs of one row, whose
// inputs are a fixed step apart for every tap: neighbours, or (TRANSPOSED) neighbours of one phase, x mod stride.
// Grid: x = rows * phases * strips / local_size, y blocks of output channels (group after group), z batch.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const int OUTPUT_TILE = 8;
layout(constant_id = 2) const int PIXELS = 4;
layout(constant_id = 3) const bool TRANSPOSED = false;
const int LANES = 8;

READ_VEC4(0, x);
READ_VEC4(1, weights);
READ_VEC4(2, residual);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, weights_offset, residual_offset, residual_batch, y_offset, y_batch;
    int in_blocks, out_blocks, tiles; // of one group: vec4 blocks of input and output channels, output tiles
    int in_size[3], out_size[3], kernel[3], stride[3], dilation[3], pad[3];
    int channels;
    float alpha, beta;
};

// the input position that tap k of output o reads on an axis (it may lie outside); `whole` tells if there is one
int source(int axis, int o, int k, out bool whole) {
    whole = true;
    if (!TRANSPOSED) return o * stride[axis] - pad[axis] + k * dilation[axis];
    int t = o + pad[axis] - k * dilation[axis];
    int i = t >= 0 ? t / stride[axis] : -((stride[axis] - 1 - t) / stride[axis]); // rounded down
    whole = i * stride[axis] == t;
    return i;
}

void main() {
    int out_step = TRANSPOSED ? stride[2] : 1; // between the outputs, and between their inputs
    int in_step = TRANSPOSED ? 1 : stride[2];
    int strips = ((out_size[2] + out_step - 1) / out_step + PIXELS - 1) / PIXELS;
    int i = int(gl_GlobalInvocationID.x);
    int row = i / (strips * out_step);
    int in_row = i - row * strips * out_step;
    int phase = in_row / strips;
    int ox = phase + (in_row - phase * strips) * PIXELS * out_step;
    int oz = row / out_size[1];
    int oy = row - oz * out_size[1];
    int group = int(gl_WorkGroupID.y) / tiles;
    int tile = int(gl_WorkGroupID.y) - group * tiles;
    int batch = int(gl_WorkGroupID.z);
    int plane = in_size[0] * in_size[1] * in_size[2];
    int taps = kernel[0] * kernel[1] * kernel[2];

    int x_base = x_offset + batch * x_batch + group * in_blocks * plane;
    int w_base = weights_offset + int(gl_WorkGroupID.y) * (OUTPUT_TILE / 4 + in_blocks * taps * OUTPUT_TILE);
    float sum[OUTPUT_TILE * PIXELS];
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++) {
        vec4 bias = LOAD(weights, w_base + g);
        UNROLL for (int c = 0; c < 4; c++)
            UNROLL for (int p = 0; p < PIXELS; p++) sum[(4 * g + c) * PIXELS + p] = bias[c];
    }
    w_base += OUTPUT_TILE / 4;
#if defined(SHUFFLE_ON)
    w_base += int(gl_SubgroupInvocationID % LANES);
#endif

    for (int tap = 0; tap < taps; tap++) {
        int line = tap / kernel[2];
        int kz = line / kernel[1];
        bool whole_z, whole_y, whole_x;
        int iz = source(0, oz, kz, whole_z);
        int iy = source(1, oy, line - kz * kernel[1], whole_y);
        int ix = source(2, ox, tap - line * kernel[2], whole_x);
        bool row_inside = whole_z && whole_y && whole_x && uint(iz) < uint(in_size[0]) && uint(iy) < uint(in_size[1]);
#if defined(SHUFFLE_OFF)
        if (!row_inside) continue; // with shuffles every lane stays: each holds weights for the others
#endif
        int x_row = (clamp(iz, 0, in_size[0] - 1) * in_size[1] + clamp(iy, 0, in_size[1] - 1)) * in_size[2];
        bool inside[PIXELS];
        int at[PIXELS];
        UNROLL for (int p = 0; p < PIXELS; p++) {
            int column = ix + p * in_step;
            inside[p] = row_inside && uint(column) < uint(in_size[2]);
            at[p] = x_row + clamp(column, 0, in_size[2] - 1);
        }
        int w_index = w_base + tap * OUTPUT_TILE;
        int x_index = x_base;
        for (int k = 0; k < in_blocks; k++) {
            vec4 v[PIXELS];
            UNROLL for (int p = 0; p < PIXELS; p++) {
                vec4 texel = LOAD(x, x_index + at[p]);
                v[p] = inside[p] ? texel : vec4(0.0);
            }
#if defined(SHUFFLE_ON)
            UNROLL for (int g = 0; g < OUTPUT_TILE / LANES; g++) {
                vec4 w = LOAD(weights, w_index + g * LANES);
                UNROLL for (int o = 0; o < LANES; o++)
                    UNROLL for (int c = 0; c < 4; c++) {
                        float s = subgroupShuffle(w[c], uint(o));
                        UNROLL for (int p = 0; p < PIXELS; p++)
                            ADD_PRODUCT(sum[(g * LANES + o) * PIXELS + p], s, v[p][c]);
                    }
            }
#else
            UNROLL for (int o = 0; o < OUTPUT_TILE; o++) {
                vec4 w = LOAD(weights, w_index + o);
                UNROLL for (int c = 0; c < 4; c++)
                    UNROLL for (int p = 0; p < PIXELS; p++) ADD_PRODUCT(sum[o * PIXELS + p], w[c], v[p][c]);
            }
#endif
            x_index += plane;
            w_index += taps * OUTPUT_TILE;
        }
    }

    if (oz >= out_size[0]) return;
    int block = tile * (OUTPUT_TILE / 4);
    int out_plane = out_size[0] * out_size[1] * out_size[2];
    int place = (group * out_blocks + block) * out_plane + row * out_size[2];
    UNROLL for (int g = 0; g < OUTPUT_TILE / 4; g++)
        if (block + g < out_blocks) {
            UNROLL for (int p = 0; p < PIXELS; p++) {
                int column = ox + p * out_step;
                if (column < out_size[2]) {
                    vec4 value = vec4(sum[(4 * g) * PIXELS + p], sum[(4 * g + 1) * PIXELS + p],
                                      sum[(4 * g + 2) * PIXELS + p], sum[(4 * g + 3) * PIXELS + p]);
                    int at = place + g * out_plane + column;
                    FINISH(value, y_offset + batch * y_batch + at, residual_offset + batch * residual_batch + at,
                           block + g)
                }
            }
        }
}
