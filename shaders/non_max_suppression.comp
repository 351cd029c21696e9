#version 450
#extension GL_GOOGLE_include_directive : require
// Greedy non-maximum suppression of one class of one image (a row): again and again the box with the best score is
// selected (of equal ones that of the lower index), and those that overlap it by more than iou_threshold are dropped.
// One workgroup computes one row. Each lane keeps a list of its own of the boxes that are left, so that nothing has to
// be shared but the best of all. A dispatch selects at most `steps` boxes of a row, and the next one goes on from
// there: no dispatch takes longer than a driver allows, whatever the number of boxes.
// work holds per row: the number of boxes selected, whether more may follow, each lane's number of boxes left, the
// `most` selected boxes, and `list_room` places for the lanes' lists (entry j of a lane at j * lanes + lane).
#include "tensor.glsl"
#include "grid.glsl"

#define MOST_LANES 64

layout(constant_id = 1) const bool center_form = false; // boxes as x, y of the middle, width, height; else two corners
layout(constant_id = 2) const bool first_dispatch = true;
layout(constant_id = 3) const bool has_threshold = true;

shared float lane_score[MOST_LANES];
shared int lane_box[MOST_LANES];

READ_BUFFER(0, boxes, float);
READ_BUFFER(1, scores, float);
UPDATE_BUFFER(2, work, int);
layout(push_constant) uniform Push {
    int boxes_offset;
    int scores_offset;
    int work_offset;
    int rows;
    int classes;
    int count; // boxes of an image
    int most;  // to be selected of a row
    int steps;
    int list_room;
    float iou_threshold;
    float score_threshold;
};

struct Box { vec2 low, high; };

Box load_box(int at) {
    vec2 a = vec2(boxes[at], boxes[at + 1]), b = vec2(boxes[at + 2], boxes[at + 3]);
    if (center_form) return Box(a - b / 2.0, a + b / 2.0);
    return Box(min(a, b), max(a, b));
}

// intersection / union > iou_threshold; an empty box overlaps nothing, nor does one that is no numbers
bool overlaps(Box a, Box b) {
    vec2 side = min(a.high, b.high) - max(a.low, b.low);
    vec2 of_a = a.high - a.low, of_b = b.high - b.low;
    float intersection = side.x * side.y;
    float area_a = of_a.x * of_a.y, area_b = of_b.x * of_b.y;
    float both = area_a + area_b - intersection;
    bool exist = all(greaterThan(vec4(min(side.x, side.y), min(area_a, area_b), intersection, both), vec4(0.0)));
    return exist && intersection / both > iou_threshold;
}

bool precedes(float score, int box, float other_score, int other_box) {
    return box >= 0 && (other_box < 0 || score > other_score || (score == other_score && box < other_box));
}

void main() {
    int lane = int(gl_LocalInvocationID.x), lanes = int(gl_WorkGroupSize.x);
    int row_size = 2 + lanes + most + list_room;
    FOR_Y(row, rows) {
        int state = work_offset + row * row_size;
        int selected_at = state + 2 + lanes, list = selected_at + most + lane;
        int image = boxes_offset + row / classes * count * 4;
        int row_scores = scores_offset + row * count;
        int left = 0, selected = 0, last = -1;
        if (first_dispatch) {
            for (int i = lane; i < count; i += lanes) {
                float score = scores[row_scores + i];
                // NaN is no score, with a threshold or without
                if (has_threshold ? score > score_threshold : !isnan(score)) work[list + left++ * lanes] = i;
            }
        } else {
            selected = work[state];
            left = work[state + 1] != 0 ? work[state + 2 + lane] : 0;
            if (selected > 0) last = work[selected_at + selected - 1];
        }
        int end = min(selected + steps, most);
        bool more = first_dispatch || work[state + 1] != 0;
        barrier(); // all lanes have read the state
        while (more && selected < end) {
            int best = -1;
            float best_score = 0.0;
            Box chosen = load_box(image + max(last, 0) * 4);
            int kept = 0;
            for (int j = 0; j < left; j++) {
                int i = work[list + j * lanes];
                bool dropped = last >= 0 && (i == last || overlaps(chosen, load_box(image + i * 4)));
                if (!dropped) {
                    work[list + kept * lanes] = i;
                    kept++;
                    float score = scores[row_scores + i];
                    bool better = precedes(score, i, best_score, best);
                    best = better ? i : best;
                    best_score = better ? score : best_score;
                }
            }
            left = kept;
            barrier();
            lane_score[lane] = best_score;
            lane_box[lane] = best;
            barrier();
            for (int other = 0; other < lanes; other++) {
                if (precedes(lane_score[other], lane_box[other], best_score, best)) {
                    best = lane_box[other];
                    best_score = lane_score[other];
                }
            }
            more = best >= 0;
            if (more && lane == 0) work[selected_at + selected] = best;
            selected += more ? 1 : 0;
            last = best;
        }
        if (lane == 0) {
            work[state] = selected;
            work[state + 1] = more && selected < most ? 1 : 0;
        }
        work[state + 2 + lane] = left;
    }
}
