// The four pixels around a position of a map, and what each counts there; zero beyond the map.
#ifndef VKCONV_BILINEAR_GLSL
#define VKCONV_BILINEAR_GLSL

// `place`: row, column (both in [-1, size]) and a factor. `at`: the indices of the pixels (row-major, clamped to the
// map); `weight`: their bilinear weights times the factor, 0 for those outside.
void bilinear(vec3 place, int height, int width, out ivec4 at, out vec4 weight) {
    vec2 whole = floor(place.xy);
    vec2 fraction = place.xy - whole;
    ivec2 first = ivec2(whole);
    vec2 rows = vec2(first.x >= 0 ? 1.0 - fraction.x : 0.0, first.x + 1 < height ? fraction.x : 0.0) * place.z;
    vec2 columns = vec2(first.y >= 0 ? 1.0 - fraction.y : 0.0, first.y + 1 < width ? fraction.y : 0.0);
    int row = clamp(first.x, 0, height - 1) * width;
    int next_row = clamp(first.x + 1, 0, height - 1) * width;
    int column = clamp(first.y, 0, width - 1);
    int next_column = clamp(first.y + 1, 0, width - 1);
    at = ivec4(row + column, row + next_column, next_row + column, next_row + next_column);
    weight = vec4(rows.x * columns, rows.y * columns);
}

// vec4 `v`: tensor N's value there; `from`: the index of the map's first pixel
#define SAMPLE(v, N, from, at, weight)                                                                                 \
    v = LOAD(N, (from) + (at).x) * (weight).x;                                                                         \
    ADD_PRODUCT(v, LOAD(N, (from) + (at).y), vec4((weight).y));                                                        \
    ADD_PRODUCT(v, LOAD(N, (from) + (at).z), vec4((weight).z));                                                        \
    ADD_PRODUCT(v, LOAD(N, (from) + (at).w), vec4((weight).w));

#endif
