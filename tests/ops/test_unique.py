"""vkconv/ops/unique.py"""

from __future__ import annotations

import pytest

from tests.harness import Case, check_device, check_reference, random


def _case(
    shape: tuple[int, ...], axis: int | None, in_order: int, dtype: str = "float32", **more: object
) -> Case:
    x = random(*shape, low=0, high=3, dtype="int32").astype(dtype)
    attributes = {"sorted": in_order} | ({} if axis is None else {"axis": axis})
    dtypes = (dtype, "int64", "int64", "int64")
    return Case("Unique", (x,), attributes, 11, outputs=4, output_dtypes=dtypes, **more)


CASES = [
    _case(shape, axis, in_order, dtype)
    for shape, axis in [((17,), None), ((17,), 0), ((9, 2), None), ((9, 2), 0), ((2, 9, 1), 1)]
    for in_order in (0, 1)
    for dtype in ("float32", "int64")
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.filterwarnings("ignore:nodes that run on the host")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case, where="host")


@pytest.mark.filterwarnings("ignore:nodes that run on the host")
def test_one_output() -> None:
    case = _case((17,), None, 1)
    check_device(case.but(outputs=1, output_dtypes=("float32",)), where="host")


def test_constants_are_folded() -> None:
    check_device(_case((17,), None, 1, constant=(0,)), where="folded")
