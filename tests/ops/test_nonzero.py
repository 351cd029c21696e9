"""vkconv/ops/nonzero.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _nonzero(shape: tuple[int, ...], dtype: str = "float32", share: float = 0.3) -> Case:
    x = random(*shape, low=1, high=5, dtype="int32") * (random(*shape, low=0, high=1) < share)
    return Case("NonZero", (x.astype(dtype),), {}, 13, output_dtypes=("int64",))


def _compress(
    shape: tuple[int, ...],
    length: int,
    axis: int | None = 0,
    dtype: str = "float32",
    **more: object,
) -> Case:
    inputs = (random(*shape, dtype=dtype), random(length, dtype="bool", seed=1))
    attributes = {} if axis is None else {"axis": axis}
    return Case("Compress", inputs, attributes, 11, output_dtypes=(dtype,), **more)


COMPUTED = [
    _compress((7, 5), 7),
    _compress((7, 5), 5, 1),
    _compress((7, 5), 3, -1),
    _compress((3, 70, 2), 70, 1),
    _compress((7, 5), 35, None),
    _compress((7, 5), 12, None),
    _compress((2000,), 2000),
    _compress((7, 5), 7, dtype="int64"),
    _compress((7, 5), 7, dtype="bool"),
]
CASES = [
    _nonzero((17,)),
    _nonzero((7, 5)),
    _nonzero((2, 3, 4, 5)),
    _nonzero((1, 2, 1, 2, 3, 1, 2, 2)),
    _nonzero((40, 500)),
    _nonzero((7, 5), "bool"),
    _nonzero((7, 5), "int64"),
    _nonzero((7, 5), "uint8"),
    _nonzero((7, 5), share=0),
    _nonzero((7, 5), share=1),
    *COMPUTED,
    *(case.but(constant=(1,)) for case in COMPUTED),
    _compress((7, 5), 0, constant=(1,)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_zeros_of_both_signs_nan_and_denormals() -> None:
    x = np.array([0.0, -0.0, np.nan, 1e-40, -np.inf, 0, 1], np.float32)
    case = Case("NonZero", (x,), {}, 13, output_dtypes=("int64",))
    assert case.expected()[0].tolist() == [[2, 3, 4, 6]]
    check_device(case)


@pytest.mark.parametrize("shape", [(), (1,) * 8 + (3,)])
def test_ranks_without_kernel_run_on_the_host(shape: tuple[int, ...]) -> None:
    with pytest.warns(RuntimeWarning):
        check_device(_nonzero(shape), where="host")


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_nothing_in_it(shape: tuple[int, ...]) -> None:
    check_device(_nonzero(shape))
    check_device(_compress(shape, 0, constant=()))


def test_a_longer_condition_counts_as_far_as_the_axis() -> None:
    x, condition = random(3, 5), np.array([0, 1, 0, 1, 1, 1, 1], bool)
    for constant in ((), (1,)):
        case = Case(
            "Compress", (x, condition), {"axis": 0}, 11, constant, output_dtypes=("float32",)
        )
        assert np.array_equal(case.expected()[0], x[1:2])
        check_device(case)


def test_errors() -> None:
    x = random(3, 5)
    for condition in (np.ones(3, np.int32), np.ones((3, 1), bool)):
        with pytest.raises(vkconv.InvalidModelError, match="condition"):
            Case("Compress", (x, condition), {"axis": 0}, 11).types()
    with pytest.raises(vkconv.InvalidModelError, match="axis 2"):
        Case("Compress", (x, np.ones(3, bool)), {"axis": 2}, 11).types()


def test_constants_are_folded() -> None:
    check_device(_nonzero((7, 5)).but(constant=(0,), output_dtypes=None), where="folded")
