// Four outputs below each other an invocation (conv2d_8x4, depthwise_conv2d_4x1): neighbouring invocations read and
// write neighbouring texels, which GPUs join into few transactions.
// Maps of fewer than four rows come TURNED on their side: rows are their columns here, in all that a kernel is pushed.
// Before including: tensor.glsl, TEXEL(at), what the input holds at a place, and `height`, `width`, `out_height`, `out_width`, `kernel_h`,
// `kernel_w`, `stride_y`, `dilation_y` (push constants).
#ifndef VKCONV_STRIP_GLSL
#define VKCONV_STRIP_GLSL

layout(constant_id = 3) const bool TURNED = false;

// places in a map, of the input and of the result, and of a tap in the kernel
#define INPUT_ROW (TURNED ? 1 : width)
#define INPUT_COLUMN (TURNED ? height : 1)
#define OUTPUT_ROW (TURNED ? 1 : out_width)
#define OUTPUT_COLUMN (TURNED ? out_height : 1)
#define TAP_PLACE(ky, kx) (TURNED ? (kx) * kernel_h + (ky) : (ky) * kernel_w + (kx))

// a column of the input, from the row that the strip's first output needs for its first tap
struct Column {
    int top, row; // place of the column's first texel in the map
    bool inside;
};

Column find_column(int plane, int row, int column) {
    return Column(plane + clamp(column, 0, width - 1) * INPUT_COLUMN, row, uint(column) < uint(width));
}

// texels outside the map read one inside it and count as zero; a model's padding may be so large that rows have to be
// clamped before they become places
vec4 read_below(Column column, int rows) {
    int row = column.row + rows;
    vec4 texel = TEXEL(column.top + clamp(row, 0, height - 1) * INPUT_ROW);
    return column.inside && uint(row) < uint(height) ? texel : vec4(0.0);
}

// TAP(ky, v0, v1, v2, v3) for every tap of a kernel's column, with the texels of the four outputs. A variant axis, since
// some compilers are slowed by code that a specialization constant leaves out (SwiftShader: four times).
#if defined(TAPS_THREE)
// three rows, and each output a tap's rows below the one before, whose texels it shares
#define FOR_TAPS_BELOW(column, TAP)                                                                                    \
    vec4 v0 = read_below(column, 0), v1 = read_below(column, stride_y);                                                \
    vec4 v2 = read_below(column, 2 * stride_y), v3 = read_below(column, 3 * stride_y);                                 \
    TAP(0, v0, v1, v2, v3)                                                                                             \
    v0 = read_below(column, 4 * stride_y);                                                                             \
    TAP(1, v1, v2, v3, v0)                                                                                             \
    v1 = read_below(column, 5 * stride_y);                                                                             \
    TAP(2, v2, v3, v0, v1)
#else
#define FOR_TAPS_BELOW(column, TAP)                                                                                    \
    for (int ky = 0; ky < kernel_h; ky++) {                                                                            \
        int rows = ky * dilation_y;                                                                                    \
        vec4 v0 = read_below(column, rows), v1 = read_below(column, rows + stride_y);                                  \
        vec4 v2 = read_below(column, rows + 2 * stride_y), v3 = read_below(column, rows + 3 * stride_y);               \
        TAP(ky, v0, v1, v2, v3)                                                                                        \
    }
#endif

#endif
