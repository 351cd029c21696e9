"""vkconv/ops/arg_extreme.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _case(
    op_type: str, shape: tuple[int, ...], axis: int | None, dtype: str = "float32", **more: int
) -> Case:
    # few different numbers, so that many are equal
    x = random(*shape, low=-4, high=5, dtype="int32").astype(dtype)
    attributes = {} if axis is None else {"axis": axis}
    return Case(op_type, (x,), attributes | more, 13)


SHAPES = [((17,), 0), ((5, 7, 3), 1), ((5, 100), -1), ((300, 5), 0), ((2000,), 0), ((3, 80, 70), 1)]
CASES = [
    *(
        _case(op, shape, axis, keepdims=keepdims, select_last_index=last)
        for op in ("ArgMax", "ArgMin")
        for shape, axis in SHAPES
        for keepdims, last in [(0, 1), (1, 0)]
    ),
    _case("ArgMax", (5, 7), None),
    _case("ArgMax", (5, 0, 7), 2),
    _case("ArgMax", (5, 40), 1, "int32"),
    _case("ArgMin", (5, 40), 1, "int8"),
    _case("ArgMin", (5, 40), 0, "uint8"),
    _case("ArgMax", (5, 40), 1, "int64", select_last_index=1),
    _case("ArgMax", (5, 40), 1, "float16"),
    _case("ArgMax", (5, 40), 1).but(opset=11),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
def test_special_numbers(op_type: str) -> None:
    rows = [
        [1, np.nan, np.inf, np.nan],
        [-np.inf, 1, np.inf, np.inf],
        [0.0, -0.0, 0.0, -0.0],
        [-0.0, 0.0, -1e-40, 1e-40],
        [np.nan, -np.nan, 1, 2],
        [-np.inf, -np.inf, 3e38, -3e38],
    ]
    for last in (0, 1):
        x = np.array(rows, np.float32)
        check_device(Case(op_type, (x,), {"axis": 1, "select_last_index": last}, 13))
        wide = np.tile(x, (1, 8))
        check_device(Case(op_type, (wide,), {"axis": 1, "select_last_index": last}, 13))


def test_an_empty_axis_is_an_error() -> None:
    with pytest.raises(vkconv.InvalidModelError, match="empty"):
        _case("ArgMax", (5, 0), 1).types()
