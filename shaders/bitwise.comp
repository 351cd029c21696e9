#version 450
#extension GL_GOOGLE_include_directive : require
// y = f(a, b) on the bits of integers, with broadcasting; linear. `kind` as in vkconv/ops/bitwise.py. Narrow types lie
// sign- or zero-extended in int32, which And, Or and Xor keep; the others wrap to `bits`, signed or not.
// Each operand is a strided array of up to 6 dimensions `size`; a stride of 0 broadcasts. The last `lane_dimensions`
// dimensions run over the lanes, the others over workgroups. One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"

#define BITWISE_AND 0
#define BITWISE_OR 1
#define BITWISE_XOR 2
#define BITWISE_NOT 3 // of a
#define BITWISE_LEFT 4
#define BITWISE_RIGHT 5

layout(constant_id = 1) const int kind = BITWISE_AND;
layout(constant_id = 2) const int lane_dimensions = 1;
layout(constant_id = 3) const int bits = 32;
layout(constant_id = 4) const int is_signed = 1;

READ_BUFFER(0, a, int);
READ_BUFFER(1, b, int);
WRITE_BUFFER(2, y, int);
layout(push_constant) uniform Push {
    int a_offset;
    int b_offset;
    int y_offset;
    int size[6];
    int a_stride[6];
    int b_stride[6];
};

int wrap(int v) {
    if (bits >= 32) return v;
    return is_signed != 0 ? bitfieldExtract(v, 0, bits) : int(bitfieldExtract(uint(v), 0, bits));
}

// shifts by more than the type has bits, or by a negative number, leave what extending the sign does
int apply(int u, int v) {
    if (kind == BITWISE_AND) return u & v;
    if (kind == BITWISE_OR) return u | v;
    if (kind == BITWISE_XOR) return u ^ v;
    if (kind == BITWISE_NOT) return wrap(~u);
    bool out_of_range = v < 0 || v >= bits;
    if (kind == BITWISE_LEFT) return out_of_range ? 0 : wrap(u << (v & 31));
    return out_of_range ? (u < 0 ? -1 : 0) : u >> (v & 31);
}

void main() {
    int rows = lane_dimensions == 1 ? size[3] * size[4] : lane_dimensions == 2 ? size[3] : 1;
    int width = lane_dimensions == 1 ? size[5] : lane_dimensions == 2 ? size[4] * size[5] : size[3] * size[4] * size[5];
    FOR_Z(slab, size[0] * size[1] * size[2]) FOR_Y(row, rows) FOR_X(lane, width) {
        int rest = (slab * rows + row) * width + lane;
        int to = y_offset + rest, i = a_offset, j = b_offset;
        UNROLL for (int d = 5; d >= 0; d--) {
            int next = rest / size[d];
            int at = rest - next * size[d];
            i += at * a_stride[d];
            j += at * b_stride[d];
            rest = next;
        }
        y[to] = apply(a[i], b[j]);
    }
}
