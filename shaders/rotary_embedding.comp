#version 450
#extension GL_GOOGLE_include_directive : require
// y = x with pairs of elements of each head turned by an angle per position; linear. The first 2 * pairs elements of a
// head form pairs (d, d + pairs), or `interleaved` (2d, 2d + 1):
//     y1 = cos x1 - sin x2,  y2 = sin x1 + cos x2
// The rest stays. cosine and sine are dense [batch][position][pairs]; element d of head h at position s of batch b lies
// at b * batch_step + h * head_step + s * position_step + d. One invocation computes one element.
#include "tensor.glsl"
#include "grid.glsl"

layout(constant_id = 1) const int interleaved = 0;

READ_BUFFER(0, x, float);
READ_BUFFER(1, cosine, float);
READ_BUFFER(2, sine, float);
WRITE_BUFFER(3, y, float);
layout(push_constant) uniform Push {
    int x_offset;
    int cosine_offset;
    int sine_offset;
    int y_offset;
    int batches;
    int heads;
    int positions;
    int head_size;
    int pairs;
    int batch_step;
    int head_step;
    int position_step;
};

void main() {
    FOR_Z(b, batches) FOR_Y(h, heads) FOR_X(i, positions * head_size) {
        int s = i / head_size, d = i - s * head_size;
        int start = b * batch_step + h * head_step + s * position_step;
        float v = x[x_offset + start + d];
        if (d < 2 * pairs) {
            int pair = interleaved != 0 ? d >> 1 : d % pairs;
            bool second = interleaved != 0 ? (d & 1) == 1 : d >= pairs;
            int distance = interleaved != 0 ? 1 : pairs;
            float other = x[x_offset + start + (second ? d - distance : d + distance)];
            int angle = (b * positions + s) * pairs + pair;
            float c = cosine[cosine_offset + angle];
            float t = sine[sine_offset + angle];
            v = second ? t * other + c * v : c * v - t * other;
        }
        y[y_offset + start + d] = v;
    }
}
