// The products of the small tiles, which are written out without arrays (conv2d_8x4, conv_transpose2d_8x4): four
// output channels of a pixel are one vec4 of sums.
// Before including: tensor.glsl. Where LOAD_OUTPUTS is used: `weights` (READ_VEC4).
#ifndef VKCONV_SMALL_TILE_GLSL
#define VKCONV_SMALL_TILE_GLSL

// four outputs' weights for four input channels, one channel a column
#define LOAD_OUTPUTS(index)                                                                                            \
    transpose(mat4(LOAD(weights, index), LOAD(weights, (index) + 1), LOAD(weights, (index) + 2),                       \
                   LOAD(weights, (index) + 3)))

// Not sum += w * v: products that are summed before the sum takes them cost a fifth operation.
void add_products(inout vec4 sum, mat4 w, vec4 v) {
    ADD_PRODUCT(sum, w[0], vec4(v.x));
    ADD_PRODUCT(sum, w[1], vec4(v.y));
    ADD_PRODUCT(sum, w[2], vec4(v.z));
    ADD_PRODUCT(sum, w[3], vec4(v.w));
}

#endif
