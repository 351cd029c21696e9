"""MaxUnpool against onnxruntime and ONNX's evaluator, the kernel against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import InvalidModelError


def unpool(
    shape: tuple[int, ...], output_shape: tuple[int, ...] | None = None, **attributes: Any
) -> Case:
    """A MaxUnpool of random values; no index is there twice."""
    probe = Case("MaxUnpool", (random(*shape), random(*shape, dtype="int64")), attributes)
    inner = int(np.prod(probe.types()[0].dims))
    order = np.random.default_rng(0).permutation(inner)[: int(np.prod(shape))]
    inputs = (random(*shape), order.reshape(shape).astype(np.int64))
    if output_shape is None:
        return Case("MaxUnpool", inputs, attributes, 22)
    sizes = np.array(output_shape, np.int64)
    return Case("MaxUnpool", (*inputs, sizes), attributes, 22, constant=(2,))


CASES = [
    unpool((1, 1, 2, 2), kernel_shape=[2, 2], strides=[2, 2]),
    unpool((2, 5, 3, 4), kernel_shape=[3, 2], strides=[2, 2]),
    unpool((2, 3, 4, 4), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    unpool((2, 3, 7), kernel_shape=[2], strides=[2]),
    unpool((1, 3, 2, 3, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    unpool((1, 4, 1, 1), kernel_shape=[1, 1]),
]
LARGER = [
    unpool((1, 3, 3, 4), (1, 3, 8, 11), kernel_shape=[2, 2], strides=[2, 2]),
    unpool((2, 2, 5), (2, 2, 13), kernel_shape=[2], strides=[2]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case.but(opset=21))


@pytest.mark.parametrize("case", LARGER, ids=str)
def test_reference_of_a_given_shape(case: Case) -> None:
    check_reference(case, lambda c: ReferenceEvaluator(c.model()).run(None, c.feeds()))


@pytest.mark.parametrize("case", CASES + LARGER, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("opset", [9, 11])
def test_every_version(opset: int) -> None:
    check_reference(CASES[1].but(opset=opset))
    check_device(CASES[1].but(opset=opset))


def test_smaller_shapes_and_indices_outside() -> None:
    case = unpool((1, 3, 3, 4), (1, 3, 4, 11), kernel_shape=[2, 2], strides=[2, 2])
    check_device(case)
    indices = np.array(case.inputs[1])
    indices.reshape(-1)[::3] = [
        -1,
        144,
        2**31 - 1,
        -(2**31),
        10**6,
        -5,
        145,
        150,
        -9,
        500,
        99999,
        200,
    ]
    check_device(case.but(inputs=(case.inputs[0], indices, case.inputs[2])))
    check_device(case.but(inputs=(case.inputs[0], indices), constant=()))


@pytest.mark.parametrize(
    "case",
    [
        CASES[1].but(inputs=(random(2, 5, 3, 4), random(2, 5, 3, 3, dtype="int64"))),
        CASES[1].but(attributes={"kernel_shape": [2]}),
        CASES[1].but(attributes={"kernel_shape": [1, 1], "pads": [3, 0, 3, 0]}),
        LARGER[0].but(inputs=(*LARGER[0].inputs[:2], np.array([2, 3, 8, 11], np.int64))),
        LARGER[0].but(inputs=(*LARGER[0].inputs[:2], np.array([1, 3, -8, 11], np.int64))),
    ],
    ids=str,
)
def test_bad_nodes_are_refused(case: Case) -> None:
    with pytest.raises(InvalidModelError):
        case.types()
