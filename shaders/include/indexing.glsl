// Indices that come from the model's data, elements of strided arrays, and numbers as keys that sort like them.
#ifndef VKCONV_INDEXING_GLSL
#define VKCONV_INDEXING_GLSL

#define STRIDED_DIMS 6

// negative indices count from the end; whatever lies outside the axis is clamped to it
int wrap_index(int index, int size) {
    if (index < 0) index += size;
    return clamp(index, 0, size - 1);
}

// where element `position` of a dense array of sizes `size` lies in another of strides `stride`; `dims` (a specialization
// constant, so that no division is done for nothing) counts the innermost dimensions that are longer than one
int strided_place(int position, int dims, const int size[STRIDED_DIMS], const int stride[STRIDED_DIMS]) {
    int place = 0;
    UNROLL for (int d = STRIDED_DIMS - 1; d >= 0; d--) {
        if (d < STRIDED_DIMS - dims) break;
        int next = d == STRIDED_DIMS - dims ? 0 : position / size[d];
        place += (position - next * size[d]) * stride[d];
        position = next;
    }
    return place;
}

// An element (the bits of a float, or an int) as an int that is larger the earlier the element comes: the largest
// first, or with `ascending` the smallest. Zeros of both signs are equal; NaN counts as the largest number, or with
// `nan_first` comes first in both orders.
int sort_key(int bits, bool is_float, bool ascending, bool nan_first) {
    if (is_float) {
        int magnitude = bits & 0x7fffffff;
        if (magnitude > 0x7f800000) return ascending && !nan_first ? int(0x80000000) : 0x7fffffff;
        bits = magnitude == 0 ? 0 : bits < 0 ? bits ^ 0x7fffffff : bits;
    }
    return ascending ? ~bits : bits;
}

#endif
