#version 450
#extension GL_GOOGLE_include_directive : require
// counts[row, chunk, digit] = how many of the chunk's keys that begin with the row's settled digits go on with each
// digit; see radix_select.glsl. One workgroup counts one chunk.
#include "tensor.glsl"
#include "grid.glsl"
#include "radix_select.glsl"

layout(constant_id = 3) const int shift = 0; // of the digit counted

shared uint bins[RADIX];

READ_BUFFER(0, x, int);
READ_BUFFER(1, state, int);
WRITE_BUFFER(2, counts, int);
layout(push_constant) uniform Push {
    int x_offset;
    int state_offset;
    int counts_offset;
    int rows;
    int length;
    int inner;
    int chunks;
    int chunk;
};

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Y(row, rows) for (int part = int(gl_WorkGroupID.x); part < chunks; part += int(gl_NumWorkGroups.x)) {
        int o = row / inner;
        int from = x_offset + o * length * inner + row - o * inner;
        int end = min((part + 1) * chunk, length);
        bool all = shift + RADIX_BITS >= 32; // none is settled
        uint settled = all ? 0u : uint(state[state_offset + row * 2]);
        barrier();
        for (int b = lane; b < RADIX; b += lanes) bins[b] = 0u;
        barrier();
        for (int i = part * chunk + lane; i < end; i += lanes) {
            uint key = radix_key(x[from + i * inner]);
            if (all || key >> (all ? 0 : shift + RADIX_BITS) == settled)
                atomicAdd(bins[(key >> shift) & uint(RADIX - 1)], 1u);
        }
        barrier();
        int to = counts_offset + (row * chunks + part) * RADIX;
        for (int b = lane; b < RADIX; b += lanes) counts[to + b] = int(bins[b]);
    }
}
