"""vkconv/ops/gather_elements.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random
from tests.ops.guarded import WILD, check_guarded


def _gather(
    shape: tuple[int, ...],
    picked: tuple[int, ...],
    axis: int = 0,
    dtype: str = "float32",
    index: str = "int64",
    **more: object,
) -> Case:
    size = shape[axis]
    indices = random(*picked, low=-size, high=size, dtype=index, seed=1)
    return Case(
        "GatherElements", (random(*shape, dtype=dtype), indices), {"axis": axis}, 13, **more
    )


CASES = [
    _gather((7,), (17,)),
    _gather((7, 5), (3, 5)),
    _gather((7, 5), (7, 13), 1),
    _gather((7, 5), (4, 1), 1),
    _gather((1, 100, 4), (1, 33, 4), 1),
    _gather((3, 5, 7), (2, 4, 17), -1),
    _gather((3, 5, 7), (2, 11, 3), 1),
    _gather((2, 3, 2, 5, 2, 7), (1, 2, 1, 9, 1, 4), 3),
    _gather((7, 5), (3, 5), dtype="int64"),
    _gather((7, 5), (3, 5), dtype="bool", index="int32"),
    _gather((7, 5), (3, 5), dtype="float16", index="int32"),
    _gather((7, 5), (3, 5), 1, constant=(1,)),
    _gather((7, 5), (0, 5)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_more_dimensions_than_the_kernel_has_run_on_the_host() -> None:
    case = _gather((3,) * 7, (2,) * 7, 3)
    with pytest.warns(RuntimeWarning, match="dimensions"):
        check_device(case, where="host")


@pytest.mark.parametrize("axis", [0, 1])
def test_computed_indices_outside_are_clamped(axis: int) -> None:
    indices = np.resize(WILD, (10, 4) if axis == 0 else (7, 10))
    check_guarded(Case("GatherElements", (random(7, 5), indices), {"axis": axis}, 13))


def test_errors() -> None:
    x = random(7, 5)
    bad = [
        (np.array([[7, 0]]), 0, "outside"),
        (np.array([[-8, 0]]), 0, "outside"),
        (np.zeros((1, 6), np.int64), 0, "do not fit"),
        (np.zeros(3, np.int64), 0, "do not fit"),
        (np.zeros((1, 2), np.int64), 2, "axis 2"),
    ]
    for indices, axis, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            Case("GatherElements", (x, indices), {"axis": axis}, constant=(1,)).types()
    with pytest.raises(vkconv.InvalidModelError, match="empty"):
        Case("GatherElements", (random(0, 5), np.zeros((2, 5), np.int64))).types()
