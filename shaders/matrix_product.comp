#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; width = vec4, scalar; rows = own, shuffled)
#pragma vkconv exclude(access = uniform_texel, rows = shuffled)
#pragma vkconv exclude(access = ssbo, rows = shuffled)
// y = activate(alpha * a b + beta * bias), a batch of products of matrices a (M, K) and b (K, N).
// a: rows of vec4 along K, K padded with zeros to whole vec4s. b: panels of `panel` vec4 columns, each panel
// [K padded][panel] of vec4 along N; a row-major b is one panel. y: row-major, vec4s (N % 4 == 0) or scalars.
// One invocation computes `tile_rows` rows by `tile_columns` vec4 columns that lie local_size_x apart, of which it adds
// every local_size_y-th vec4 along K; where local_size_y > 1, sums of the same columns meet in shared memory.
// rows = shuffled: each of 8 lanes loads every eighth row of a's tile and the others get it by subgroup shuffles, which
// a CPU driver does in registers (for subgroups of 8 or more).
#include "tensor.glsl"
#include "activations.glsl"
#if defined(ROWS_SHUFFLED)
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

layout(local_size_x_id = 0, local_size_y_id = 1) in;
layout(constant_id = 2) const int tile_rows = 8;
layout(constant_id = 3) const int tile_columns = 2;
layout(constant_id = 4) const int has_bias = 0;
layout(constant_id = 5) const int activation = ACT_NONE;

READ_VEC4(0, a);
READ_VEC4(1, b);
READ_BUFFER(2, bias, float);
#if defined(WIDTH_VEC4)
WRITE_BUFFER(3, y, vec4);
#else
WRITE_BUFFER(3, y, float);
#endif
layout(push_constant) uniform Push {
    int a_offset;
    int b_offset;
    int bias_offset;
    int y_offset;
    int rows;          // M
    int columns;       // N, of this dispatch
    int depth;         // vec4s along K
    int panel;         // vec4 columns
    int panel_stride;  // vec4s from panel to panel
    int y_row;         // elements of the buffer from row to row
    int y_column;      // first column
    int y_step;        // from batch to batch
    int batch_size[3];
    int a_step[3];
    int b_step[3];
    int bias_row;      // strides of bias along M and N, 0 where it is broadcast
    int bias_column;
    float alpha;
    float beta;
    float activation_alpha;
    float activation_beta;
};

const int SHARED_ROWS = (tile_rows + 7) / 8;
const int SLICED = int(gl_WorkGroupSize.y) > 1 ? int(gl_WorkGroupSize.x * gl_WorkGroupSize.y) : 1;
shared vec4 partial[SLICED];

void store(int batch, int m, int column4, vec4 v) {
    if (m >= rows || column4 * 4 >= columns) return;
    v *= alpha;
    if (has_bias != 0) {
        int at = bias_offset + m * bias_row + column4 * 4 * bias_column;
        int left = columns - column4 * 4;
        v.x += beta * bias[at];
        if (left > 1) v.y += beta * bias[at + bias_column];
        if (left > 2) v.z += beta * bias[at + 2 * bias_column];
        if (left > 3) v.w += beta * bias[at + 3 * bias_column];
    }
    v = activate(activation, v, activation_alpha, activation_beta);
#if defined(WIDTH_VEC4)
    y[y_offset + batch * y_step + m * y_row + y_column + column4] = v;
#else
    int to = y_offset + batch * y_step + m * y_row + y_column + column4 * 4;
    int left = columns - column4 * 4;
    y[to] = v.x;
    if (left > 1) y[to + 1] = v.y;
    if (left > 2) y[to + 2] = v.z;
    if (left > 3) y[to + 3] = v.w;
#endif
}

void compute(int batch, int row, int first_column) {
    int slice = int(gl_LocalInvocationID.y), slices = int(gl_WorkGroupSize.y);
    int batch2 = batch % batch_size[2], batch01 = batch / batch_size[2];
    int batch1 = batch01 % batch_size[1], batch0 = batch01 / batch_size[1];
    int a_start = a_offset + batch0 * a_step[0] + batch1 * a_step[1] + batch2 * a_step[2];
    int b_start = b_offset + batch0 * b_step[0] + batch1 * b_step[1] + batch2 * b_step[2];
    int columns4 = (columns + 3) / 4;
    int b_at[tile_columns];
    vec4 sum[tile_rows * tile_columns];
    // rows and columns beyond the edge repeat the last one; they are not stored
#if defined(ROWS_SHUFFLED)
    int a_at[SHARED_ROWS];
    UNROLL for (int i = 0; i < SHARED_ROWS; i++)
        a_at[i] = a_start + min(row + i * 8 + int(gl_SubgroupInvocationID & 7u), rows - 1) * depth;
#else
    int a_at[tile_rows];
    UNROLL for (int i = 0; i < tile_rows; i++) a_at[i] = a_start + min(row + i, rows - 1) * depth;
#endif
    UNROLL for (int j = 0; j < tile_columns; j++) {
        int column4 = min(first_column + j * int(gl_WorkGroupSize.x), columns4 - 1);
        b_at[j] = b_start + column4 / panel * panel_stride + column4 % panel;
    }
    UNROLL for (int i = 0; i < tile_rows * tile_columns; i++) sum[i] = vec4(0.0);
    for (int k = slice; k < depth; k += slices) {
        vec4 av[tile_rows];
#if defined(ROWS_SHUFFLED)
        vec4 own[SHARED_ROWS];
        UNROLL for (int i = 0; i < SHARED_ROWS; i++) own[i] = LOAD(a, a_at[i] + k);
        UNROLL for (int i = 0; i < tile_rows; i++) av[i] = subgroupShuffle(own[i / 8], uint(i & 7));
#else
        UNROLL for (int i = 0; i < tile_rows; i++) av[i] = LOAD(a, a_at[i] + k);
#endif
        UNROLL for (int j = 0; j < tile_columns; j++) {
            int at = b_at[j] + k * 4 * panel;
            vec4 b0 = LOAD(b, at), b1 = LOAD(b, at + panel);
            vec4 b2 = LOAD(b, at + 2 * panel), b3 = LOAD(b, at + 3 * panel);
            UNROLL for (int i = 0; i < tile_rows; i++) {
                vec4 s = sum[i * tile_columns + j];
                ADD_PRODUCT(s, vec4(av[i].x), b0);
                ADD_PRODUCT(s, vec4(av[i].y), b1);
                ADD_PRODUCT(s, vec4(av[i].z), b2);
                ADD_PRODUCT(s, vec4(av[i].w), b3);
                sum[i * tile_columns + j] = s;
            }
        }
    }
    UNROLL for (int i = 0; i < tile_rows; i++) {
        UNROLL for (int j = 0; j < tile_columns; j++) {
            vec4 v = sum[i * tile_columns + j];
            if (slices > 1) {
                int lane = int(gl_LocalInvocationID.x), width = int(gl_WorkGroupSize.x);
                barrier();
                partial[slice * width + lane] = v;
                barrier();
                v = vec4(0.0);
                if (slice == 0)
                    for (int s = 0; s < slices; s++) v += partial[s * width + lane];
            }
            if (slice == 0) store(batch, row + i, first_column + j * int(gl_WorkGroupSize.x), v);
        }
    }
}

void main() {
    int width = int(gl_WorkGroupSize.x) * tile_columns;
    int first_column = int(gl_WorkGroupID.x) * width + int(gl_LocalInvocationID.x);
    int batches = batch_size[0] * batch_size[1] * batch_size[2];
    for (int batch = int(gl_WorkGroupID.z); batch < batches; batch += int(gl_NumWorkGroups.z))
        for (int row = int(gl_WorkGroupID.y) * tile_rows; row < rows; row += int(gl_NumWorkGroups.y) * tile_rows)
            compute(batch, row, first_column);
}
