"""vkconv/ops/gather_nd.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random
from tests.ops.guarded import WILD, check_guarded


def _tuples(
    shape: tuple[int, ...], count: tuple[int, ...], depth: int, first: int = 0
) -> np.ndarray:
    columns = [
        random(*count, low=-size, high=size, dtype="int64", seed=d)
        for d, size in enumerate(shape[first : first + depth])
    ]
    return np.stack(columns, -1)


def _gather(
    shape: tuple[int, ...],
    count: tuple[int, ...],
    depth: int,
    batch_dims: int = 0,
    dtype: str = "float32",
    **more: object,
) -> Case:
    indices = _tuples(shape, count, depth, batch_dims)
    attributes = {"batch_dims": batch_dims} if batch_dims else {}
    return Case("GatherND", (random(*shape, dtype=dtype), indices), attributes, 13, **more)


CASES = [
    _gather((7,), (17,), 1),
    _gather((7, 5), (3,), 1),
    _gather((7, 5), (3, 4), 2),
    _gather((7, 5, 33), (9,), 2),
    _gather((7, 5, 3), (9, 2), 2),
    _gather((3, 7, 5, 2), (3, 4), 2, 1),
    _gather((2, 3, 7, 40), (2, 3, 5), 1, 2),
    _gather((2, 3, 7), (2, 3), 1, 2),
    _gather((2, 3, 2, 3, 2, 3, 2), (11,), 7),
    _gather((7, 5), (3,), 1, dtype="int64"),
    _gather((7, 5), (3,), 2, dtype="bool"),
    _gather((7, 5), (3,), 2, constant=(1,)),
    _gather((7, 5), (0,), 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_long_tuples_run_on_the_host() -> None:
    with pytest.warns(RuntimeWarning, match="tuples"):
        check_device(_gather((2,) * 9, (3,), 9), where="host")


@pytest.mark.parametrize("inner", [1, 40])
def test_computed_indices_outside_are_clamped(inner: int) -> None:
    indices = np.stack([WILD, WILD[::-1]], -1)
    check_guarded(Case("GatherND", (random(7, 5, inner), indices), {}, 13))


def test_errors() -> None:
    x = random(3, 7, 5)
    bad = [
        (np.array([[0, 7]]), 0, "outside"),
        (np.array([[-4, 0]]), 0, "outside"),
        (np.zeros((1, 4), np.int64), 0, "tuples of 4"),
        (np.zeros((1, 0), np.int64), 0, "tuples of 0"),
        (np.zeros((2, 1), np.int64), 1, "batches"),
        (np.zeros((3, 1), np.int64), 2, "batch_dims"),
    ]
    for indices, batch_dims, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            Case("GatherND", (x, indices), {"batch_dims": batch_dims}, 13, constant=(1,)).types()
