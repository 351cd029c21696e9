"""CenterCropPad against ONNX's evaluator, and on the device."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import InvalidModelError


def center(
    x: tuple[int, ...],
    shape: list[int],
    axes: list[int] | None = None,
    dtype: str = "float32",
) -> Case:
    inputs = (random(*x, dtype=dtype), np.array(shape, np.int64))
    attributes = {} if axes is None else {"axes": axes}
    return Case("CenterCropPad", inputs, attributes, constant=(1,))


CASES = [
    center((20, 10, 3), [10, 7, 3]),
    center((10, 7, 3), [20, 10, 3]),
    center((20, 8, 3), [10, 11, 3]),
    center((3, 20, 8), [10, 9], axes=[1, 2]),
    center((20, 8, 3), [9, 15], axes=[-3, -2]),
    center((2, 5, 7, 6), [11, 3], axes=[2, 3]),
    center((2, 5, 7, 6), [4, 6, 7, 9], axes=[0, 1, 2, 3]),
    center((2, 5, 7, 6), [3], axes=[1], dtype="int32"),
    center((6,), [6]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case, lambda c: ReferenceEvaluator(c.model()).run(None, c.feeds()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_between_convolutions() -> None:
    check_device(CASES[5].but(layout="c4"))
    check_device(CASES[6].but(layout="c4"))


@pytest.mark.parametrize("shape", [[3], [3, -1], [2, 2, 2]])
def test_wrong_shapes_are_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidModelError):
        center((2, 5, 7, 6), shape, axes=[2, 3]).types()
