"""Col2Im against torch's fold and ONNX's evaluator, and the kernel against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv.errors import InvalidModelError
from vkconv.ops.conv_geometry import conv_axes


def fold(n: int, c: int, image: list[int], block: list[int], **attributes: Any) -> Case:
    axes = conv_axes(
        image,
        block,
        attributes.get("strides"),
        attributes.get("pads"),
        attributes.get("dilations"),
        "NOTSET",
    )
    x = random(n, c * int(np.prod(block)), int(np.prod([a.out for a in axes])))
    shapes = (np.array(image, np.int64), np.array(block, np.int64))
    reduction = int(np.prod(block))
    return Case("Col2Im", (x, *shapes), attributes, constant=(1, 2), reduction=reduction)


PLANES = [
    fold(1, 1, [5, 5], [1, 5]),
    fold(2, 3, [7, 9], [3, 3], pads=[1, 1, 1, 1]),
    fold(2, 5, [8, 7], [2, 3], strides=[2, 2]),
    fold(1, 4, [9, 10], [3, 2], dilations=[2, 3], pads=[2, 1, 2, 1]),
    fold(1, 2, [1, 1], [1, 1]),
]
OTHERS = [
    fold(2, 3, [11], [4], strides=[3], pads=[1, 2]),
    fold(1, 3, [4, 5, 6], [2, 2, 3], pads=[0, 1, 1, 1, 0, 2], strides=[1, 2, 1]),
    fold(1, 2, [6, 7], [3, 3], pads=[1, 0, 2, 1]),
]
CASES = PLANES + OTHERS


@pytest.mark.parametrize("case", PLANES, ids=str)
def test_reference_against_torch(case: Case) -> None:
    x, image, block = case.inputs
    a = case.attributes
    y = torch.nn.functional.fold(
        torch.from_numpy(x),
        image.tolist(),
        block.tolist(),
        a.get("dilations", 1),
        a.get("pads", [0, 0])[:2],
        a.get("strides", 1),
    )
    assert_close(case.expected()[0], y.numpy(), case.reduction)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_shapes_that_the_model_computes() -> None:
    case = fold(2, 3, [7, 7], [3, 3], pads=[1, 1, 1, 1])
    check_device(case.but(constant=(), output_dtypes=("float32",)))


def test_four_axes_run_on_the_host() -> None:
    with pytest.warns(RuntimeWarning, match="no kernel"):
        check_device(fold(1, 2, [3, 4, 3, 2], [2, 2, 1, 2]), where="host")


@pytest.mark.parametrize(
    "case",
    [
        CASES[1].but(inputs=(random(2, 27, 62), *CASES[1].inputs[1:])),
        CASES[1].but(inputs=(random(2, 26, 63), *CASES[1].inputs[1:])),
        CASES[1].but(attributes={"strides": [0, 1]}),
        CASES[1].but(inputs=(*CASES[1].inputs[:2], np.array([3], np.int64))),
    ],
    ids=str,
)
def test_bad_nodes_are_refused(case: Case) -> None:
    with pytest.raises(InvalidModelError):
        case.types()
