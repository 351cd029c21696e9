#version 450
#extension GL_GOOGLE_include_directive : require
// values[row, i], indices[row, i] = the element i in order of a row of x, and where it lies there, for the first `kept`:
// the best of all, the best that comes after it, and so on. Of equal elements the one with the lower index comes first.
// Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step in x; in y likewise with kept_stride
// instead of outer_stride and kept_row. Linear; elements are moved as bits. One invocation picks from one row.
#include "tensor.glsl"
#include "grid.glsl"
#include "indexing.glsl"

layout(constant_id = 1) const bool is_float = true;
layout(constant_id = 2) const bool ascending = false;

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, values, int);
WRITE_BUFFER(2, indices, int);
layout(push_constant) uniform Push {
    int x_offset;
    int values_offset;
    int indices_offset;
    int outer;
    int outer_stride;
    int rows; // per o
    int row_stride;
    int length;
    int step;
    int kept;
    int kept_stride;
    int kept_row;
};

void main() {
    FOR_Y(o, outer) FOR_X(c, rows) {
        int from = x_offset + o * outer_stride + c * row_stride;
        int to = o * kept_stride + c * kept_row;
        int last_key = 0x7fffffff, last = -1;
        for (int k = 0; k < kept; k++) {
            int best_key = int(0x80000000), best = length;
            for (int i = 0; i < length; i++) {
                int key = sort_key(x[from + i * step], is_float, ascending, false);
                bool after = key < last_key || (key == last_key && i > last);
                // i grows, so the first of equal keys stays; the least key has to beat nothing
                bool better = after && (key > best_key || best == length);
                best_key = better ? key : best_key;
                best = better ? i : best;
            }
            last_key = best_key;
            last = best;
            values[values_offset + to + k * step] = x[from + best * step];
            indices[indices_offset + to + k * step] = best;
        }
    }
}
