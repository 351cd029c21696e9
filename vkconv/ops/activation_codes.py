"""Codes of the element-wise functions in ``shaders/include/activations.glsl`` (a test compares the
two)."""

from __future__ import annotations

from enum import IntEnum


class Activation(IntEnum):
    """``ACT_<name>`` of the shader include; ``alpha`` and ``beta`` mean what the comment there
    says."""

    NONE = 0
    RELU = 1
    LEAKY_RELU = 2
    CLIP = 3
    SIGMOID = 4
    TANH = 5
    SILU = 6
    HARD_SIGMOID = 7
    HARD_SWISH = 8
    ELU = 9
    MISH = 10
    SOFTPLUS = 11
    GELU = 12
    GELU_TANH = 13
    ERF = 14
    ABS = 15
    NEG = 16
    SQRT = 17
    EXP = 18
    LOG = 19
    RECIPROCAL = 20
    FLOOR = 21
    CEIL = 22
    ROUND = 23
    SIGN = 24
    SELU = 25
    CELU = 26
    THRESHOLDED_RELU = 27
    SOFTSIGN = 28
    HALF = 29
    SHRINK = 30
