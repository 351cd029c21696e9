#version 450
#extension GL_GOOGLE_include_directive : require
// Neighbouring sorted lists of each row merged two and two into lists that keep the best `kept` pairs. Pairs are as
// sort_tiles.comp writes them: keys, and `plane` later indices. A list covers `span` elements of a row of `length` (the
// last one what is left), and holds the best `room` of them.
// One invocation moves one pair: its new place is its old one plus the number of pairs of the other list that come
// before it, found by bisection. Equal keys: those of the first list come first, as its indices are lower.
#include "tensor.glsl"
#include "grid.glsl"

READ_BUFFER(0, x, int);
WRITE_BUFFER(1, y, int);
layout(push_constant) uniform Push {
    int x_offset;
    int y_offset;
    int x_plane;
    int y_plane;
    int rows;
    int length;
    int lists; // per row of x
    int span;
    int room;
    int kept;
};

int count_of(int list) {
    // compared before it is multiplied: list * span may exceed int
    return list >= lists ? 0 : min(room, length - list * span);
}

void main() {
    int merged = (lists + 1) / 2;
    FOR_Y(row, rows) FOR_X(i, merged * 2 * room) {
        int list = i / room;
        int place = i - list * room;
        if (place >= count_of(list)) continue;
        int start = x_offset + row * lists * room;
        int from = start + list * room + place;
        int key = x[from];
        bool second = (list & 1) == 1;
        int other = start + (list ^ 1) * room;
        int low = 0, high = count_of(list ^ 1);
        while (low < high) {
            int middle = (low + high) / 2;
            int there = x[other + middle];
            if (there > key || (second && there == key)) low = middle + 1;
            else high = middle;
        }
        place += low;
        if (place < kept) {
            int to = y_offset + (row * merged + list / 2) * kept + place;
            y[to] = key;
            y[to + y_plane] = x[from + x_plane];
        }
    }
}
