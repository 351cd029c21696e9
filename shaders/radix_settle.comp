#version 450
#extension GL_GOOGLE_include_directive : require
// The next digit of each row's last key that is taken, from the counts that radix_count.comp made; see
// radix_select.glsl. One workgroup settles the digit of one row.
#include "tensor.glsl"
#include "grid.glsl"
#include "radix_select.glsl"

layout(constant_id = 3) const bool first_digit = false;

shared int totals[RADIX];

READ_BUFFER(0, counts, int);
UPDATE_BUFFER(1, state, int);
layout(push_constant) uniform Push {
    int counts_offset;
    int state_offset;
    int rows;
    int chunks;
    int kept;
};

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Y(row, rows) {
        barrier();
        for (int b = lane; b < RADIX; b += lanes) {
            int total = 0;
            for (int part = 0; part < chunks; part++) total += counts[counts_offset + (row * chunks + part) * RADIX + b];
            totals[b] = total;
        }
        barrier();
        if (lane == 0) {
            int at = state_offset + row * 2;
            int settled = first_digit ? 0 : state[at];
            int left = first_digit ? kept : state[at + 1];
            int digit = RADIX - 1;
            for (; digit > 0 && totals[digit] < left; digit--) left -= totals[digit];
            state[at] = settled << RADIX_BITS | digit;
            state[at + 1] = left;
        }
    }
}
