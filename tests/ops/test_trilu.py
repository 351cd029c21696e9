"""vkconv/ops/trilu.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _case(
    shape: tuple[int, ...], k: int | None, upper: int, dtype: str = "float32", **more: object
) -> Case:
    x = random(*shape, dtype=dtype)
    inputs = (x,) if k is None else (x, np.array(k, np.int64))
    return Case("Trilu", inputs, {"upper": upper}, 14, **more)


CASES = [
    *(
        _case(shape, k, upper)
        for shape in [(5, 5), (3, 7), (2, 3, 70, 5)]
        for k in (None, 0, 2, -3)
        for upper in (0, 1)
    ),
    _case((3, 7), 2, 1, constant=(1,)),
    _case((3, 7), 2, 1, "int64"),
    _case((3, 7), 2, 1, "bool"),
    _case((0, 7), 2, 1),
    _case((3, 7), 100, 0),
    _case((3, 7), -100, 0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_extreme_diagonals() -> None:
    # 2^40 is held as int32 where it is a constant
    for k in (2**31 - 1, -(2**31), 2**40):
        check_device(_case((3, 7), k, 1, constant=(1,)))
    check_device(_case((3, 7), -(2**31), 0))


def test_nothing_is_multiplied() -> None:
    x = np.array([[np.nan, np.inf], [-np.inf, np.nan]], np.float32)
    check_device(Case("Trilu", (x,), {}, 14))


def test_errors() -> None:
    with pytest.raises(vkconv.InvalidModelError, match="no matrices"):
        _case((7,), None, 1).types()
    with pytest.raises(vkconv.InvalidModelError, match="one element"):
        Case("Trilu", (random(3, 7), np.array([0, 1])), {}, 14).types()


EYES = [
    Case("EyeLike", (random(*shape, dtype=dtype),), given, 22)
    for shape, given, dtype in [
        ((5, 5), {}, "float32"),
        ((3, 7), {"k": 2}, "int32"),
        ((7, 3), {"k": -2, "dtype": 11}, "int32"),
        ((3, 7), {"dtype": 9}, "float32"),
        ((3, 0), {}, "float32"),
    ]
]


@pytest.mark.parametrize("case", EYES, ids=str)
def test_eye_like(case: Case) -> None:
    check_reference(case)
    check_device(case, where="folded")


def test_eye_like_errors() -> None:
    with pytest.raises(vkconv.InvalidModelError, match="rank 1"):
        Case("EyeLike", (random(3),), {}, 22).types()
    with pytest.raises(vkconv.InvalidModelError, match="element type 99"):
        Case("EyeLike", (random(3, 3),), {"dtype": 99}, 22).types()
