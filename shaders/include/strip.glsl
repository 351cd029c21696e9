// Four outputs below each other an invocation (conv2d_8x4, depthwise_conv2d_4x1): neighbouring invocations read and
// write neighbouring texels, which GPUs join into few transactions.
// Maps of fewer than four rows come TURNED on their side: rows are their columns here, in all that a kernel is pushed.
// Before including: tensor.glsl, TEXEL(at), what the input holds at a place, and `height`, `width`, `out_height`,
// `out_width`, `kernel_h`, `kernel_w`, `stride_y`, `dilation_y`, `dilation_x` (push constants).
#ifndef VKCONV_STRIP_GLSL
#define VKCONV_STRIP_GLSL

layout(constant_id = 3) const bool TURNED = false;

// places in a map, of the input and of the result, and of a tap in the kernel
#define INPUT_ROW (TURNED ? 1 : width)
#define INPUT_COLUMN (TURNED ? height : 1)
#define OUTPUT_ROW (TURNED ? 1 : out_width)
#define OUTPUT_COLUMN (TURNED ? out_height : 1)
#define TAP_PLACE(ky, kx) (TURNED ? (kx) * kernel_h + (ky) : (ky) * kernel_w + (kx))

bool is_row(int row) { return uint(row) < uint(height); }
bool is_column(int column) { return uint(column) < uint(width); }

// Where a row and a column begin; those outside the map are replaced by its nearest. A model's padding may be so large
// that they have to be, before they become places.
int row_place(int row) { return clamp(row, 0, height - 1) * INPUT_ROW; }
int column_place(int column) { return clamp(column, 0, width - 1) * INPUT_COLUMN; }

vec4 texel_or_zero(int at, bool is_inside) {
    vec4 texel = TEXEL(at);
    return is_inside ? texel : vec4(0.0);
}

// TAP(place, v0, v1, v2, v3) for every tap of the window whose first texel is (top, left): its place in the kernel, and
// the texels of the four outputs. Two variants, since some compilers are slowed by code that a specialization constant
// leaves out (SwiftShader: four times). Neither unrolls: three taps written out were beyond Adreno 6xx's registers.
#if defined(TAPS_SLIDING)
// each output lies one tap's row below the one before, so that a tap needs one row more than the last one
#define FOR_TAPS(plane, top, left, TAP)                                                                                \
    for (int kx = 0; kx < kernel_w; kx++) {                                                                            \
        int column = left + kx * dilation_x, row = top;                                                                \
        bool in_column = is_column(column);                                                                            \
        column = plane + column_place(column);                                                                         \
        vec4 v0, v1 = texel_or_zero(column + row_place(row), in_column && is_row(row));                                \
        row += dilation_y;                                                                                             \
        vec4 v2 = texel_or_zero(column + row_place(row), in_column && is_row(row));                                    \
        row += dilation_y;                                                                                             \
        vec4 v3 = texel_or_zero(column + row_place(row), in_column && is_row(row));                                    \
        for (int ky = 0; ky < kernel_h; ky++) {                                                                        \
            row += dilation_y;                                                                                         \
            v0 = v1, v1 = v2, v2 = v3;                                                                                 \
            v3 = texel_or_zero(column + row_place(row), in_column && is_row(row));                                     \
            TAP(TAP_PLACE(ky, kx), v0, v1, v2, v3)                                                                     \
        }                                                                                                              \
    }
#else
#define FOR_TAPS(plane, top, left, TAP)                                                                                \
    for (int ky = 0; ky < kernel_h; ky++) {                                                                            \
        int row0 = top + ky * dilation_y, row1 = row0 + stride_y, row2 = row1 + stride_y, row3 = row2 + stride_y;      \
        bool in0 = is_row(row0), in1 = is_row(row1), in2 = is_row(row2), in3 = is_row(row3);                           \
        int at0 = plane + row_place(row0), at1 = plane + row_place(row1);                                              \
        int at2 = plane + row_place(row2), at3 = plane + row_place(row3);                                              \
        for (int kx = 0; kx < kernel_w; kx++) {                                                                        \
            int column = left + kx * dilation_x;                                                                       \
            bool in_column = is_column(column);                                                                        \
            column = column_place(column);                                                                             \
            vec4 v0 = texel_or_zero(at0 + column, in_column && in0);                                                   \
            vec4 v1 = texel_or_zero(at1 + column, in_column && in1);                                                   \
            vec4 v2 = texel_or_zero(at2 + column, in_column && in2);                                                   \
            vec4 v3 = texel_or_zero(at3 + column, in_column && in3);                                                   \
            TAP(TAP_PLACE(ky, kx), v0, v1, v2, v3)                                                                     \
        }                                                                                                              \
    }
#endif

#endif
