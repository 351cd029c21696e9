#version 450
#extension GL_GOOGLE_include_directive : require
// y[j] = (image, class, box) of everything non_max_suppression.comp selected, rows in order; found[0] = how many.
// A row's work starts with their number; `ends` holds the running totals of these, and the selected boxes lie
// `selected_at` behind the row's start. Linear. One workgroup copies one row, its lanes share it.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, work, int);
READ_BUFFER(1, ends, int);
WRITE_BUFFER(2, y, int);
WRITE_BUFFER(3, found, int);
layout(push_constant) uniform Push {
    int work_offset;
    int ends_offset;
    int y_offset;
    int found_offset;
    int rows;
    int classes;
    int row_size;
    int selected_at;
};

void main() {
    FOR_Y(row, rows) {
        int first = row == 0 ? 0 : ends[ends_offset + row - 1];
        int last = ends[ends_offset + row];
        int image = row / classes;
        int selected = work_offset + row * row_size + selected_at;
        FOR_X(j, last - first) {
            int to = y_offset + (first + j) * 3;
            y[to] = image;
            y[to + 1] = row - image * classes;
            y[to + 2] = work[selected + j];
        }
        if (row == rows - 1 && gl_GlobalInvocationID.x == 0) found[found_offset] = last;
    }
}
