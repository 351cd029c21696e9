"""Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand and Tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _with(op_type: str, shape: tuple[int, ...], ints: list[int], **more: Any) -> Case:
    attributes = more.pop("attributes", {})
    dtype = more.pop("dtype", "float32")
    return Case(
        op_type,
        (random(*shape, dtype=dtype), np.array(ints, np.int64)),
        attributes,
        more.pop("opset", 21),
        (1,),
        **more,
    )


RESHAPES = [
    _with("Reshape", (2, 3, 4), [4, -1]),
    _with("Reshape", (2, 3, 4), [0, 12]),
    _with("Reshape", (2, 3, 4), [0, 0, 2, 2]),
    _with("Reshape", (2, 0, 4), [0, 4, 0], attributes={"allowzero": 1}),
    _with("Reshape", (1, 1), []),
    _with("Reshape", (2, 6), [3, 4], dtype="int64"),
    _with("Reshape", (2, 6, 3, 5), [2, -1], layout="c4"),
    Case("Flatten", (random(2, 3, 4, 5),)),
    Case("Flatten", (random(2, 3, 4, 5),), {"axis": 0}),
    Case("Flatten", (random(2, 3, 4, 5),), {"axis": -1}),
    Case("Flatten", (random(2, 8, 1, 1),), {"axis": 1}, layout="c4"),
    Case("Flatten", (random(2, 7, 1, 1),), {"axis": 1}, layout="c4"),
    _with("Squeeze", (1, 3, 1, 5), [0, -2]),
    Case("Squeeze", (random(1, 3, 1, 5),), {}, 13),
    Case("Squeeze", (random(1, 3, 1, 5),), {"axes": [2]}, 11),
    _with("Unsqueeze", (3, 5), [0, -1]),
    _with("Unsqueeze", (3, 5), [3, 1]),
    Case("Unsqueeze", (random(3, 5),), {"axes": [0, 2]}, 11),
]
TRANSPOSES = [
    Case("Transpose", (random(3, 5),)),
    Case("Transpose", (random(2, 3, 5, 7),)),
    *(
        Case("Transpose", (random(2, 3, 5, 8),), {"perm": perm})
        for perm in ([0, 2, 3, 1], [0, 3, 1, 2], [1, 0, 2, 3], [3, 1, 2, 0], [0, 1, 3, 2])
    ),
    Case("Transpose", (random(1, 3, 85, 6, 7),), {"perm": [0, 1, 3, 4, 2]}),
    Case("Transpose", (random(1, 84, 130),), {"perm": [0, 2, 1]}),
    Case("Transpose", (random(64, 128),)),
    Case("Transpose", (random(1, 7, 1, 5),), {"perm": [0, 2, 1, 3]}),
    Case("Transpose", (random(2, 3, 2, 2, 3, 2, 3),), {"perm": [6, 4, 2, 0, 1, 3, 5]}),
    Case("Transpose", (random(2, 3, 2, 2, 3, 2, 3, 2),), {"perm": [7, 6, 5, 4, 3, 2, 1, 0]}),
    Case("Transpose", (random(3, 4, dtype="int64", low=-9, high=9),)),
    Case("Transpose", (random(3, 0, 4),)),
    Case("Transpose", (random(2, 5, 3, 4),), {"perm": [0, 2, 3, 1]}, layout="c4"),
]
REPEATS = [
    _with("Expand", (3, 1), [2, 3, 4], opset=13),
    _with("Expand", (3, 1, 5), [3, 7, 1], opset=13),
    _with("Expand", (1,), [17], opset=13),
    _with("Expand", (3, 4), [1], opset=13),
    _with("Expand", (2, 1, 3), [2, 0, 3], opset=13),
    _with("Expand", (3, 1), [2, 1, 4], opset=13, dtype="int64"),
    _with("Tile", (2, 3), [2, 3], opset=13),
    _with("Tile", (2, 3, 4), [1, 5, 1], opset=13),
    _with("Tile", (3, 8), [1, 4], opset=13),
    _with("Tile", (2, 3), [1, 0], opset=13),
    _with("Tile", (2, 3), [1, 1], opset=13),
    _with("Tile", (2, 3), [2, 2], opset=13, dtype="bool"),
]
CASES = [*RESHAPES, *TRANSPOSES, *REPEATS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize(
    "case",
    [
        _with("Reshape", (2, 3), [4, -1]),
        _with("Reshape", (2, 3), [-1, -1]),
        _with("Reshape", (2, 3), [2, 3, 0]),
        _with("Reshape", (2, 3), [-2, 3]),
        Case("Flatten", (random(2, 3),), {"axis": 3}),
        _with("Squeeze", (2, 3), [0]),
        _with("Unsqueeze", (2, 3), [0, 0]),
        Case("Transpose", (random(2, 3),), {"perm": [0, 0]}),
        _with("Expand", (2, 3), [4, 3]),
        _with("Tile", (2, 3), [4]),
    ],
    ids=str,
)
def test_contradictions_are_errors(case: Case) -> None:
    with pytest.raises(vkconv.InvalidModelError, match="node_under_test"):
        case.types()
