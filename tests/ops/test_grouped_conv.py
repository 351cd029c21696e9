"""Transposed convolutions whose groups fill no channel block (``grouped_conv``): which taps an
output has, by stride, dilation and padding of each axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv import InferenceSession


def grouped(x: tuple[int, ...], m: int, kernel: tuple[int, ...], group: int, **more: Any) -> Case:
    inputs = (random(*x), random(x[1], m // group, *kernel, low=-1, high=1), random(m, seed=2))
    reduction = x[1] // group * int(np.prod(kernel))
    attributes = {"group": group, **more}
    return Case("ConvTranspose", inputs, attributes, constant=(1, 2), reduction=reduction)


CASES = [
    # depthwise, as upsampling in detectors has it
    grouped((2, 7, 9, 5), 7, (4, 4), 7, strides=[2, 2], pads=[1, 1, 1, 1]),
    grouped((1, 5, 3, 4), 5, (8, 8), 5, strides=[4, 4], pads=[2, 2, 2, 2]),
    # fewer taps than phases, so that outputs between have none
    grouped((1, 6, 3, 5), 12, (2, 1), 6, strides=[3, 4], output_padding=[2, 3]),
    # dilated along one axis, or both, with and without a common divisor
    grouped((2, 6, 5, 4), 9, (3, 3), 3, strides=[2, 3], dilations=[1, 2], pads=[1, 2, 0, 1]),
    grouped((1, 6, 4, 5), 4, (3, 2), 2, strides=[4, 2], dilations=[2, 3]),
    # padding beyond a whole stride
    grouped((1, 6, 7, 8), 6, (5, 5), 6, strides=[2, 3], pads=[4, 5, 3, 6]),
    grouped((1, 3, 4, 3, 5), 3, (3, 2, 4), 3, strides=[2, 1, 3], dilations=[1, 2, 1]),
    grouped((2, 6, 9), 12, (5,), 3, strides=[3], pads=[1, 2]),
]
#: padding is added to the output; onnxruntime refuses that
GROWN = [
    grouped((1, 6, 3, 4), 6, (3, 3), 6, strides=[2, 3], pads=[-3, -1, -2, -4]),
    grouped((2, 6, 3, 4), 4, (2, 3), 2, strides=[3, 2], pads=[-5, -2, 0, -1]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + GROWN, ids=str)
def test_device(case: Case) -> None:
    check_device(case)
    with InferenceSession(case.model()) as session:
        (stage,) = session._stages.values()
        assert "grouped_conv" in {dispatch.kernel for dispatch in stage.plan.dispatches}
