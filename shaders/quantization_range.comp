#version 450
#extension GL_GOOGLE_include_directive : require
// From the extremes of a tensor to its uint8 quantisation: scale = (max(high, 0) - min(low, 0)) / 255, 1 where that
// is 0; zero_point = round(clamp(-min(low, 0) / scale, 0, 255)). One invocation computes both.
#include "tensor.glsl"
#include "quantization.glsl"
#include "grid.glsl"

READ_BUFFER(0, low, float);
READ_BUFFER(1, high, float);
WRITE_BUFFER(2, scale, float);
WRITE_BUFFER(3, zero_point, int);
layout(push_constant) uniform Push {
    int low_offset;
    int high_offset;
    int scale_offset;
    int zero_point_offset;
};

void main() {
    FOR_X(i, 1) {
        float least = min(low[low_offset], 0.0), most = max(high[high_offset], 0.0);
        float step_size = most == least ? 1.0 : quotient_exact(most - least, 255.0);
        scale[scale_offset] = step_size;
        zero_point[zero_point_offset] = quantized(-quotient_exact(least, step_size), 0, 0, 255);
    }
}
