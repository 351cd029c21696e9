"""vkconv/ops/cumulative.py, rows.py"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random
from vkconv.capabilities import DeviceCaps
from vkconv.ops.rows import rows_along


def _case(
    op_type: str, shape: tuple[int, ...], axis: int, dtype: str = "float32", **attributes: int
) -> Case:
    low, high = (0.8, 1.2) if op_type == "CumProd" and dtype == "float32" else (-2, 3)
    x = random(*shape, low=low, high=high, dtype=dtype)
    opset = 26 if op_type == "CumProd" else 14
    inputs = (x, np.array(axis, np.int64))
    return Case(op_type, inputs, attributes, opset, (1,), reduction=max(shape, default=1))


SHAPES = [((17,), 0), ((5, 7, 3), 1), ((5, 100), -1), ((100, 5), 0), ((2000,), 0), ((3, 1, 70), 2)]
CASES = [
    *(
        _case(op, shape, axis, exclusive=exclusive, reverse=reverse)
        for op in ("CumSum", "CumProd")
        for shape, axis in SHAPES
        for exclusive, reverse in product((0, 1), (0, 1))
    ),
    _case("CumSum", (5, 40), 1, "int32"),
    _case("CumSum", (5, 40), 0, "int32", reverse=1),
    _case("CumProd", (5, 40), 1, "int32", exclusive=1),
    _case("CumSum", (5, 40), 1, "float16").but(reduction=400),
    _case("CumSum", (5, 0), 1, exclusive=1),
    _case("CumSum", (5, 7), 1).but(constant=(), output_dtypes=("float32",)),
    _case("CumSum", (5, 7), 1).but(inputs=(random(5, 7), np.array([-2], np.int32)), opset=11),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case.but(constant=(1,), output_dtypes=None))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_int64_stays_on_the_host() -> None:
    with pytest.warns(RuntimeWarning, match="int64"):
        check_device(_case("CumSum", (5, 7), 1, "int64"), where="host")


def test_axis() -> None:
    for axis, message in [(2, "axis 2"), ([0, 1], "one element")]:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            Case("CumSum", (random(5, 7), np.array(axis)), {}, 14, (1,)).types()


@pytest.mark.parametrize(
    "split, gpu, cpu",
    [
        ((1000, 15, 1), "own_row", "own_row"),
        ((100, 16, 1), "shared_row", "shared_row"),
        ((1000, 16, 1), "shared_row", "own_row"),
        ((8, 100, 8), "own_row", "own_row"),
        ((3, 100, 8), "shared_row", "shared_row"),
        ((1000, 10000, 8), "shared_row", "shared_row"),
    ],
)
def test_lanes_share_dense_rows_and_few_long_ones(
    split: tuple[int, int, int], gpu: str, cpu: str
) -> None:
    assert rows_along(DeviceCaps(kind="discrete"), *split).lanes == gpu
    assert rows_along(DeviceCaps(kind="cpu"), *split).lanes == cpu
