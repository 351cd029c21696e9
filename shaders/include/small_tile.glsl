// The small tiles, which are written out without arrays (conv2d_8x4, conv_transpose2d_8x4, depthwise_conv2d_4x1): four
// output channels of a pixel are one vec4 of sums; a0 to a3 are those of four pixels, b0 to b3 their next four channels.
// Before including: tensor.glsl. Where LOAD_OUTPUTS is used: READ_WEIGHTS.
#ifndef VKCONV_SMALL_TILE_GLSL
#define VKCONV_SMALL_TILE_GLSL

// four outputs' weights for four input channels, one channel a column
#define LOAD_OUTPUTS(index)                                                                                            \
    transpose(mat4(LOAD_WEIGHTS(index), LOAD_WEIGHTS((index) + 1), LOAD_WEIGHTS((index) + 2), LOAD_WEIGHTS((index) + 3)))

// Not sum += w * v: products that are summed before the sum takes them cost a fifth operation.
void add_products(inout vec4 sum, mat4 w, vec4 v) {
    ADD_PRODUCT(sum, w[0], vec4(v.x));
    ADD_PRODUCT(sum, w[1], vec4(v.y));
    ADD_PRODUCT(sum, w[2], vec4(v.z));
    ADD_PRODUCT(sum, w[3], vec4(v.w));
}

// The sums by number. They are stored in a loop, so that the epilogue is compiled once and not eight times, which halves
// the time to a first result where compilers keep what specialization constants leave out (SwiftShader).
#define SUM_OF_8(n) ((n) < 4 ? SUM_OF_4(n, a0, a1, a2, a3) : SUM_OF_4((n) - 4, b0, b1, b2, b3))
#define SUM_OF_4(n, s0, s1, s2, s3) ((n) == 0 ? s0 : (n) == 1 ? s1 : (n) == 2 ? s2 : s3)

#endif
