#version 450
#extension GL_GOOGLE_include_directive : require
// Channels [y_first, y_first + count) of y = channels [x_first, x_first + count) of x, where the two positions need
// not agree modulo four. C4 both. One invocation computes one vec4 of y from at most two of x. Lanes before y_first
// keep what y holds (`merge`) or become 0, lanes behind the last channel become 0: parts of a concatenation are thus
// copied in order, and the padding lanes of the last are right.
#pragma vkconv variants(access = storage_texel, uniform_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"

// (x_first - y_first) modulo 4: the lane of x that lane 0 of y comes from
layout(constant_id = 1) const int shift = 0;
layout(constant_id = 2) const bool merge = false;

READ_VEC4(0, x);
UPDATE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push {
    int x_offset;
    int x_batch;
    int y_offset;
    int y_batch;
    int batches;
    int pixels;
    int x_first;
    int y_first;
    int count;
};

void main() {
    int first_block = y_first / 4;
    int blocks = (y_first + count + 3) / 4 - first_block;
    int x_blocks = (x_first + count + 3) / 4;
    FOR_Z(n, batches) FOR_Y(b, blocks) {
        int block = first_block + b;
        int begin = y_first - block * 4;       // lanes [begin, end) of this block are copied
        int end = y_first + count - block * 4;
        int low = (block * 4 - y_first + x_first - shift) / 4; // exact, if maybe -1
        int from = x_offset + n * x_batch + low * pixels;
        int to = y_offset + n * y_batch + block * pixels;
        FOR_X(p, pixels) {
            vec4 a = low >= 0 ? LOAD(x, from + p) : vec4(0.0);
            vec4 v = a;
            if (shift > 0) {
                vec4 c = low + 1 < x_blocks ? LOAD(x, from + pixels + p) : vec4(0.0);
                v = shift == 1 ? vec4(a.yzw, c.x) : shift == 2 ? vec4(a.zw, c.xy) : vec4(a.w, c.xyz);
            }
            vec4 old = merge && begin > 0 ? y[to + p] : vec4(0.0);
            vec4 lane = vec4(0.0, 1.0, 2.0, 3.0);
            v = mix(v, old, lessThan(lane, vec4(float(begin))));
            y[to + p] = mix(v, vec4(0.0), greaterThanEqual(lane, vec4(float(end))));
        }
    }
}
