"""vkconv/ops/reverse_sequence.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _case(
    shape: tuple[int, ...],
    batch_axis: int,
    lengths: list[int],
    dtype: str = "float32",
    **more: object,
) -> Case:
    attributes = {"batch_axis": batch_axis, "time_axis": 1 - batch_axis}
    inputs = (random(*shape, dtype=dtype), np.array(lengths, np.int64))
    return Case("ReverseSequence", inputs, attributes, 10, **more)


CASES = [
    _case((7, 3), 1, [7, 1, 4]),
    _case((3, 7), 0, [7, 1, 4]),
    _case((7, 3, 5, 2), 1, [2, 3, 6]),
    _case((3, 7, 70), 0, [2, 3, 6]),
    _case((3, 7), 0, [7, 1, 4], constant=(1,)),
    _case((3, 7), 0, [7, 1, 4], "int64"),
    _case((3, 7), 0, [7, 1, 4], "bool"),
    _case((3, 0), 0, [0, 0, 0]),
]


# ONNX Runtime refuses an empty axis
@pytest.mark.parametrize("case", CASES[:-1], ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_computed_lengths_outside_are_clamped() -> None:
    case = _case((3, 7), 0, [2**31 - 1, -(2**31), 0])
    x = case.inputs[0]
    assert np.array_equal(case.expected()[0], np.stack([x[0, ::-1], x[1], x[2]]))
    check_device(case)


def test_errors() -> None:
    bad = [
        (_case((3, 7), 0, [7, 1, 8], constant=(1,)), "length"),
        (_case((3, 7), 0, [7, 1, -1], constant=(1,)), "length"),
        (_case((3, 7), 0, [7, 1]), "shape"),
        (_case((3, 7), 2, [7, 1]), "batch_axis 2"),
        (_case((7,), 1, [7]), "not 0 and 1"),
    ]
    for case, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            case.types()
