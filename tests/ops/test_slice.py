"""Slice and Split: views where they can be, kernels elsewhere, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random
from vkconv.ops.operator import UnknownShapeError

LARGEST = np.iinfo(np.int64).max


def _slice(
    shape: tuple[int, ...],
    starts: list[int],
    ends: list[int],
    axes: list[int] | None = None,
    steps: list[int] | None = None,
    dtype: str = "float32",
    layout: Any = "linear",
) -> Case:
    extra = [starts, ends, axes, steps]
    inputs = (random(*shape, dtype=dtype), *(None if e is None else np.array(e) for e in extra))
    while inputs[-1] is None:
        inputs = inputs[:-1]
    constant = tuple(i for i in range(1, 5) if i < len(inputs) and inputs[i] is not None)
    return Case("Slice", inputs, {}, 13, constant, layout=layout)


def _split(
    shape: tuple[int, ...],
    axis: int,
    sizes: list[int],
    dtype: str = "float32",
    layout: Any = "linear",
) -> Case:
    return Case(
        "Split",
        (random(*shape, dtype=dtype), np.array(sizes)),
        {"axis": axis},
        18,
        (1,),
        outputs=len(sizes),
        layout=layout,
    )


SLICES = [
    _slice((7, 5), [1], [4], [0]),
    _slice((7, 5), [1], [4], [1]),
    _slice((7, 5), [0, 1], [LARGEST, -1]),
    _slice((17,), [-3], [LARGEST], [0]),
    _slice((17,), [-1], [-LARGEST], [0], [-1]),
    _slice((17,), [12], [2], [0], [-3]),
    _slice((3, 5, 7), [-1, 4], [-4, 0], [0, 2], [-1, -2]),
    _slice((3, 5, 7), [5], [2], [1]),
    _slice((1, 3, 6, 8), [0, 0], [LARGEST, LARGEST], [2, 3], [2, 2]),
    _slice((1, 3, 6, 8), [1, 1], [LARGEST, LARGEST], [2, 3], [2, 2]),
    _slice((1, 84, 21), [4], [84], [1]),
    _slice((2, 84, 21), [4], [84], [1]),
    _slice((1, 25, 85), [0], [2], [-1]),
    _slice((1, 25, 84), [4], [84], [2]),
    _slice((2, 3, 2, 3, 2, 4, 3), [1, 1, 1, 0], [3, 2, 3, 2], [1, 2, 5, 6]),
    _slice((7, 5), [1], [6], [0], [2], dtype="int64"),
    _slice((7, 5), [1], [4], [1], dtype="bool"),
]
IN_C4 = [
    _slice((2, 16, 5, 7), [4], [12], [1], layout="c4"),
    _slice((2, 15, 5, 7), [4], [15], [1], layout="c4"),
    _slice((2, 16, 5, 7), [4], [11], [1], layout="c4"),
    _slice((2, 13, 5, 7), [3], [LARGEST], [1], layout="c4"),
    _slice((2, 13, 5, 7), [1, 6], [2, 11], [0, 1], layout="c4"),
    _slice((2, 13, 5, 7), [1], [2], [0], layout="c4"),
    _slice((2, 13, 5, 7), [-1], [-LARGEST], [0], [-1], layout="c4"),
    _slice((2, 9, 5, 7), [0, 1], [LARGEST, LARGEST], [2, 3], [2, 2], layout="c4"),
    _slice((2, 9, 5, 7), [4, 6], [0, 0], [2, 3], [-1, -2], layout="c4"),
    _slice((2, 9, 5, 7), [4, 1], [8, 5], [1, 3], layout="c4"),
    _slice((2, 9, 5, 7), [3, 1], [8, 5], [1, 3], layout="c4"),
    _slice((2, 9, 5, 7), [0], [LARGEST], [1], [2], layout="c4"),
    _slice((2, 9, 7), [1], [4], [1], layout="c4"),
    _slice((1, 9, 3, 4, 5), [1], [3], [2], layout="c4"),
]
SPLITS = [
    _split((12,), 0, [3, 4, 5]),
    _split((2, 12), 1, [3, 4, 5]),
    _split((2, 12), -1, [12]),
    _split((3, 6, 5), 0, [1, 2]),
    _split((1, 85, 7), 1, [4, 1, 80]),
    _split((2, 7), 1, [3, 0, 4]),
    _split((4, 3), 0, [2, 2], dtype="int64"),
    _split((2, 16, 5, 7), 1, [8, 8], layout="c4"),
    _split((2, 15, 5, 7), 1, [4, 8, 3], layout="c4"),
    _split((2, 16, 5, 7), 1, [3, 5, 8], layout="c4"),
    _split((2, 5, 6, 7), 2, [2, 4], layout="c4"),
    _split((2, 5, 6, 7), 3, [2, 4, 1], layout="c4"),
    _split((3, 5, 2, 7), 0, [1, 2], layout="c4"),
]
OLDER = [
    Case("Slice", (random(5, 7),), {"starts": [1, -3], "ends": [3, 100], "axes": [0, 1]}, 9),
    Case("Slice", (random(5, 7),), {"starts": [1], "ends": [3]}, 1),
    Case("Split", (random(6, 4),), {"axis": 0, "split": [2, 4]}, 11, outputs=2),
    Case("Split", (random(6, 4),), {"axis": 0}, 13, outputs=3),
    Case("Split", (random(7, 4),), {"axis": 0, "num_outputs": 3}, 18, outputs=3),
]
CASES = [*SLICES, *IN_C4, *SPLITS, *OLDER]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize(
    "case",
    [
        _slice((5, 7), [1], [4], [0], [0]),
        _slice((5, 7), [1, 2], [4], [0]),
        _slice((5, 7), [1], [4], [2]),
        _split((6,), 0, [2, 5]),
        Case("Split", (random(7, 4),), {"axis": 0}, 13, outputs=3),
    ],
    ids=str,
)
def test_contradictions_are_errors(case: Case) -> None:
    with pytest.raises(vkconv.InvalidModelError, match="node_under_test"):
        case.types()


def test_a_computed_start_leaves_the_shape_unknown() -> None:
    case = _slice((5, 7), [1], [4], [0]).but(constant=(2, 3))
    with pytest.raises(UnknownShapeError):
        case.types()
