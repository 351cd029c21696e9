"""Pad in every mode, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _pad(
    shape: tuple[int, ...],
    pads: list[int],
    value: float | None = None,
    axes: list[int] | None = None,
    mode: str = "constant",
    dtype: str = "float32",
    opset: int = 21,
    layout: Any = "linear",
) -> Case:
    inputs = [random(*shape, dtype=dtype), np.array(pads, np.int64), None, None]
    if value is not None:
        inputs[2] = np.array(value, dtype)
    if axes is not None:
        inputs[3] = np.array(axes, np.int64)
    while inputs[-1] is None:
        inputs.pop()
    constant = tuple(i for i in range(1, len(inputs)) if inputs[i] is not None)
    return Case("Pad", tuple(inputs), {"mode": mode}, opset, constant, layout=layout)


SPATIAL = [0, 0, 1, 2, 0, 0, 3, 1]
CASES = [
    *(
        _pad((2, 5, 6, 7), SPATIAL, mode=mode, layout=layout)
        for mode in ("constant", "reflect", "edge", "wrap")
        for layout in ("linear", "c4")
    ),
    _pad((2, 5, 6, 7), SPATIAL, 1.5, layout="c4"),
    _pad((2, 7, 6, 7), SPATIAL, -np.inf, layout="c4"),
    _pad((2, 5, 6, 7), [1, 0, 0, 0, 0, 0, 0, 0], 2.5, layout="c4"),
    _pad((2, 5, 6, 7), [0, 1, 0, 0, 0, 2, 0, 0], 2.5, layout="c4"),
    _pad((1, 5, 9), [0, 0, 2, 0, 0, 3], mode="edge", layout="c4"),
    _pad((1, 5, 2, 3, 4), [0, 0, 1, 0, 2, 0, 0, 0, 1, 1], 0.5, layout="c4"),
    _pad((2, 5, 6, 7), [0, 0, -1, 2, 0, 0, 3, -2], 1.0),
    _pad((2, 5, 6, 7), [0, 0, -1, 2, 0, 0, 3, -2], mode="edge", layout="c4"),
    _pad((3, 4), [1, 2, 3, 4], 0.25),
    _pad((5,), [2, 3], mode="reflect"),
    _pad((3, 4, 5), [2, 1], 1.0, axes=[-1]),
    _pad((3, 4, 5), [1, 0, 2, 3], axes=[2, 0]),
    _pad((2, 3, 4, 2, 3, 2), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0], 3.0),
    _pad((3, 4), [1, 2, 3, 4], 7, dtype="int64"),
    _pad((3, 4), [1, 2, 3, 4], dtype="int32"),
    Case("Pad", (random(3, 4),), {"pads": [1, 0, 2, 3], "value": 1.5}, 10),
    Case("Pad", (random(1, 3, 4, 5),), {"pads": [0, 0, 1, 1, 0, 0, 2, 0], "mode": "reflect"}, 2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_an_empty_tensor_grows_by_the_constant() -> None:
    case = _pad((0, 3), [1, 0, 1, 2], 4.0)
    assert np.array_equal(case.expected()[0], np.full((2, 5), 4.0, np.float32))


def test_seven_padded_dimensions_run_on_the_host() -> None:
    case = _pad((2,) * 7, [1] * 14)
    check_reference(case)
    check_device(case, where="host")


@pytest.mark.parametrize(
    "case",
    [_pad((3, 4), [1, 2, 3]), _pad((3, 4), [-4, 0, 0, 0]), _pad((3, 4), [1] * 4, mode="mirror")],
    ids=str,
)
def test_contradictions_are_errors(case: Case) -> None:
    with pytest.raises(vkconv.InvalidModelError, match="node_under_test"):
        case.types()
