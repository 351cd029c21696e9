#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
// y[r][c][i][j] = maximum of x[batch][c] over the pixels of bin (i, j) of region r, 0 for an empty bin.
// x: C4; rois: linear [r][batch, x1, y1, x2, y2], corners rounded to whole pixels after scaling, both inclusive; y: C4.
// One invocation: one bin of one region in one channel block. Regions come from the model's data: whatever they hold,
// the pixels read are clamped to the map.
#include "tensor.glsl"
#include "grid.glsl"

READ_VEC4(0, x);
READ_BUFFER(1, rois, float);
WRITE_BUFFER(2, y, vec4);
layout(push_constant) uniform Push {
    int x_offset, x_batch, rois_offset, y_offset, y_batch;
    int count, batch_size, blocks;
    int height, width, out_height, out_width;
    float spatial_scale;
};

const float FAR = 1000000.0; // beyond every map, and exact

float corner(float place) {
    place *= spatial_scale;
    place = place == place ? clamp(place, -FAR, FAR) : 0.0;
    return place < 0.0 ? ceil(place - 0.5) : floor(place + 0.5); // half away from zero
}

// the pixels of bin `bin` of an axis: from .x up to but not including .y
ivec2 bounds(float first, float last, int bins, int bin, int size) {
    float extent = max(last - first + 1.0, 1.0) / float(bins);
    float low = floor(float(bin) * extent) + first;
    float high = ceil(float(bin + 1) * extent) + first;
    return ivec2(clamp(vec2(low, high), 0.0, float(size)));
}

void main() {
    int bins = out_height * out_width;
    FOR_Z(r, count) FOR_Y(block, blocks) FOR_X(bin, bins) {
        int roi = rois_offset + r * 5;
        int bin_y = bin / out_width;
        float chosen = rois[roi];
        int batch = chosen > 0.0 ? int(min(chosen, float(batch_size - 1))) : 0;
        ivec2 rows = bounds(corner(rois[roi + 2]), corner(rois[roi + 4]), out_height, bin_y, height);
        ivec2 columns = bounds(corner(rois[roi + 1]), corner(rois[roi + 3]), out_width, bin - bin_y * out_width, width);
        int map = x_offset + batch * x_batch + block * height * width;
        bool empty = rows.x >= rows.y || columns.x >= columns.y;
        vec4 total = vec4(0.0);
        if (!empty) total = LOAD(x, map + rows.x * width + columns.x);
        for (int iy = rows.x; iy < rows.y; iy++)
            for (int ix = columns.x; ix < columns.y; ix++) total = max(total, LOAD(x, map + iy * width + ix));
        y[y_offset + r * y_batch + block * bins + bin] = total;
    }
}
