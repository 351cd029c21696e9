#version 450
#extension GL_GOOGLE_include_directive : require
// y = the row's elements that are taken, in their order: indices (row, `kept`), and `rows * kept` later the elements'
// bits. Taken are the keys above the one in `state`, and the first so many equal to it; see radix_select.glsl.
// Runs twice: first tallies[row, chunk] = how many keys of the chunk are above it and how many equal, then with
// `collect` the elements are written. One workgroup goes through one chunk, each lane through a piece of it.
#include "tensor.glsl"
#include "grid.glsl"
#include "radix_select.glsl"

#define MOST_LANES 64

layout(constant_id = 3) const bool collect = false;

shared ivec2 lane_tallies[MOST_LANES];

READ_BUFFER(0, x, int);
READ_BUFFER(1, state, int);
UPDATE_BUFFER(2, tallies, int);
WRITE_BUFFER(3, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int state_offset;
    int tallies_offset;
    int y_offset;
    int rows;
    int length;
    int inner;
    int chunks;
    int chunk;
    int kept;
};

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    FOR_Y(row, rows) for (int part = int(gl_WorkGroupID.x); part < chunks; part += int(gl_NumWorkGroups.x)) {
        int o = row / inner;
        int from = x_offset + o * length * inner + row - o * inner;
        int piece = (chunk + lanes - 1) / lanes;
        int end = min((part + 1) * chunk, length);
        int first = min(part * chunk + lane * piece, end);
        end = min(first + piece, end);
        uint last = uint(state[state_offset + row * 2]);
        int equals = state[state_offset + row * 2 + 1];
        ivec2 tally = ivec2(0); // above, equal
        for (int i = first; i < end; i++) {
            uint key = radix_key(x[from + i * inner]);
            tally += ivec2(key > last, key == last);
        }
        barrier();
        lane_tallies[lane] = tally;
        barrier();
        int mine = tallies_offset + (row * chunks + part) * 2;
        if (!collect) {
            if (lane == 0) {
                for (int other = 1; other < lanes; other++) tally += lane_tallies[other];
                tallies[mine] = tally.x;
                tallies[mine + 1] = tally.y;
            }
            continue;
        }
        tally = ivec2(0);
        for (int other = 0; other < lane; other++) tally += lane_tallies[other];
        for (int before = 1; before <= part; before++)
            tally += ivec2(tallies[mine - before * 2], tallies[mine - before * 2 + 1]);
        for (int i = first; i < end; i++) {
            int bits = x[from + i * inner];
            uint key = radix_key(bits);
            if (key > last || (key == last && tally.y < equals)) {
                int to = y_offset + row * kept + tally.x + min(tally.y, equals);
                y[to] = i;
                y[to + rows * kept] = bits;
            }
            tally += ivec2(key > last, key == last);
        }
    }
}
