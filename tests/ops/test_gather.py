"""Gather: constant and computed indices, of all shapes; and what is clamped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _gather(
    shape: tuple[int, ...], indices: Any, axis: int = 0, dtype: str = "float32", **more: Any
) -> Case:
    return Case(
        "Gather",
        (random(*shape, dtype=dtype), np.array(indices, np.int64)),
        {"axis": axis},
        13,
        **more,
    )


COMPUTED = [
    _gather((7, 5), [3, 0, 6, 3]),
    _gather((7, 5), [[3, -1], [-7, 2]], 0),
    _gather((3, 7, 5), [3, 0, 6, 3], 1),
    _gather((3, 7, 5), [[4, 0, -1]], -1),
    _gather((3, 7), 2, 1),
    _gather((17,), [1, 5, 2]),
    _gather((17,), 3),
    _gather((3, 4), [1, 2], dtype="int64"),
    _gather((3, 4), [1, 2], dtype="bool"),
    _gather((3, 4), [], 1),
    _gather((2, 3, 4, 5), [2, 1], 2),
    _gather((7, 5), np.array([3, 0, -6, 3], np.int32)),
]
CASES = [
    *COMPUTED,
    *(case.but(constant=(1,)) for case in COMPUTED),
    *(
        _gather((3, 8, 5), indices, 1, constant=(1,))
        for indices in ([2, 3, 4], [6, 4, 2], [1, 4, 7], [[0, 1], [2, 3]], -1)
    ),
    _gather((2, 5, 3, 4), [1, 2], 1, layout="c4", constant=(1,)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_computed_indices_outside_are_clamped() -> None:
    case = _gather((7, 5), [100, -100, 2**31 - 1, 7])
    check_device(case)
    assert np.array_equal(case.expected()[0], case.inputs[0][[6, 0, 6, 6]])


def test_a_constant_index_outside_is_an_error() -> None:
    for index in (7, -8):
        with pytest.raises(vkconv.InvalidModelError, match="index is outside"):
            _gather((7, 5), [0, index], constant=(1,)).types()
