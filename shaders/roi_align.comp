#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// y[r][c][i][j] = mean (or maximum) of x[batch[r]][c] at points spread evenly over bin (i, j) of region r.
// x: C4; rois: linear [r][x1, y1, x2, y2]; batches: linear int [r]; y: C4. One invocation: one bin of one region in one
// channel block. A point is bilinear; points within a pixel of the map take its edge, points beyond count as zero. The
// maximum is over the four weighted pixels of each point, as the standard's definition has it.
// Regions come from the model's data: batch indices are clamped, and so is the number of points per bin.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const bool MAXIMUM = false;
layout(constant_id = 2) const bool HALF_PIXEL = true;

READ_VEC4(0, x);
READ_BUFFER(1, rois, float);
READ_BUFFER(2, batches, int);
WRITE_BUFFER(3, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, rois_offset, batches_offset, y_offset, y_batch;
    int count, batch_size, blocks;
    int height, width, out_height, out_width;
    int sampling_ratio;
    int limit_y, limit_x; // points per bin and axis
    float spatial_scale;
};

// how many points an axis of a bin gets; `extent` may be anything, NaN too
int points(float extent, int bins, int limit) {
    if (sampling_ratio > 0) return sampling_ratio;
    float wanted = ceil(extent / float(bins));
    return wanted >= 1.0 ? int(min(wanted, float(limit))) : 0;
}

// two neighbours of a position on an axis, and what the second counts
void neighbours(float place, int size, out int low, out int high, out float fraction) {
    place = clamp(place, 0.0, float(size - 1));
    low = int(place);
    high = min(low + 1, size - 1);
    fraction = place - float(low);
}

void main() {
    int bins = out_height * out_width;
    FOR_Z(r, count) FOR_Y(block, blocks) FOR_X(bin, bins) {
        int bin_y = bin / out_width;
        int bin_x = bin - bin_y * out_width;
        float shift = HALF_PIXEL ? 0.5 : 0.0;
        int roi = rois_offset + r * 4;
        vec2 start = vec2(rois[roi], rois[roi + 1]) * spatial_scale - shift;
        vec2 extent = vec2(rois[roi + 2], rois[roi + 3]) * spatial_scale - shift - start;
        if (!HALF_PIXEL) extent = max(extent, vec2(1.0));
        vec2 bin_size = extent / vec2(float(out_width), float(out_height));
        int rows = points(extent.y, out_height, limit_y);
        int columns = points(extent.x, out_width, limit_x);
        int map = x_offset + clamp(batches[batches_offset + r], 0, batch_size - 1) * x_batch + block * height * width;

        vec4 total = vec4(0.0);
        for (int iy = 0; iy < rows; iy++) {
            float py = start.y + float(bin_y) * bin_size.y + (float(iy) + 0.5) * bin_size.y / float(rows);
            int row, next_row;
            float fy;
            neighbours(py, height, row, next_row, fy);
            bool row_inside = py >= -1.0 && py <= float(height);
            for (int ix = 0; ix < columns; ix++) {
                float px = start.x + float(bin_x) * bin_size.x + (float(ix) + 0.5) * bin_size.x / float(columns);
                int column, next_column;
                float fx;
                neighbours(px, width, column, next_column, fx);
                vec4 a = vec4(0.0), b = vec4(0.0), c = vec4(0.0), d = vec4(0.0);
                if (row_inside && px >= -1.0 && px <= float(width)) {
                    a = LOAD(x, map + row * width + column) * ((1.0 - fy) * (1.0 - fx));
                    b = LOAD(x, map + row * width + next_column) * ((1.0 - fy) * fx);
                    c = LOAD(x, map + next_row * width + column) * (fy * (1.0 - fx));
                    d = LOAD(x, map + next_row * width + next_column) * (fy * fx);
                }
                if (MAXIMUM) {
                    vec4 most = max(max(a, b), max(c, d));
                    total = iy + ix == 0 ? most : max(total, most);
                } else {
                    total += a + b + c + d;
                }
            }
        }
        if (!MAXIMUM) total /= float(max(rows * columns, 1));
        y[y_offset + r * y_batch + block * bins + bin] = total;
    }
}
