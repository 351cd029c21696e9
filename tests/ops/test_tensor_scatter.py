"""vkconv/ops/tensor_scatter.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _scatter(
    shape: tuple[int, ...],
    length: int,
    writes: list[int] | None = None,
    axis: int = -2,
    mode: str = "linear",
    dtype: str = "float32",
    **more: object,
) -> Case:
    updated = list(shape)
    updated[axis] = length
    inputs = [random(*shape, dtype=dtype), random(*updated, dtype=dtype, seed=1)]
    if writes is not None:
        inputs.append(np.array(writes, np.int64))
    return Case("TensorScatter", tuple(inputs), {"axis": axis, "mode": mode}, 24, **more)


CASES = [
    _scatter((3, 7, 5), 2, [0, 3, 5]),
    _scatter((3, 7, 5), 2, [0, 6, 5], mode="circular"),
    _scatter((2, 3, 7, 5), 3, [4, 1]),
    _scatter((2, 3, 7, 5), 3, [4, 1], constant=(2,)),
    _scatter((2, 7, 3, 5), 3, [4, 6], 1, "circular"),
    _scatter((2, 7), 1, [4, 6], 1),
    _scatter((2, 3, 7, 5), 7),
    _scatter((2, 3, 7, 5), 2, [5, 0], dtype="int32"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_no_writes_means_the_start() -> None:
    case = _scatter((2, 3, 7, 5), 2)
    cache, update = case.inputs
    assert np.array_equal(case.expected()[0][:, :, :2], update)
    assert np.array_equal(case.expected()[0][:, :, 2:], cache[:, :, 2:])


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_computed_writes_outside_are_harmless(mode: str) -> None:
    check_device(_scatter((4, 7, 5), 3, [2**31 - 1, -(2**31), 9, -3], mode=mode))


def test_errors() -> None:
    bad = [
        (_scatter((3, 7, 5), 2, [0, 3, 6], constant=(2,)), "outside"),
        (_scatter((3, 7, 5), 2, [0, 3, 7], mode="circular", constant=(2,)), "outside"),
        (_scatter((3, 7, 5), 8), "does not fit"),
        (_scatter((3, 7, 5), 2, [0, 3]), "write indices"),
        (_scatter((3, 7, 5), 2, axis=0), "batch"),
        (_scatter((3, 7, 5), 2, mode="ring"), "mode"),
    ]
    for case, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            case.types()
