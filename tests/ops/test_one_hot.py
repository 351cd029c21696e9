"""vkconv/ops/one_hot.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _case(
    shape: tuple[int, ...],
    depth: int,
    axis: int | None = None,
    dtype: str = "float32",
    index: str = "int64",
    **more: object,
) -> Case:
    indices = random(*shape, low=-depth - 3, high=depth + 3, dtype=index)
    inputs = (indices, np.array(depth, np.int64), np.array([2, 5], dtype))
    return Case("OneHot", inputs, {} if axis is None else {"axis": axis}, 11, (1,), **more)


CASES = [
    _case((17,), 5),
    _case((3, 7), 80),
    _case((3, 7), 5, 0),
    _case((3, 7), 5, 1),
    _case((3, 7, 2), 5, -2),
    _case((), 5),
    _case((3, 0), 5),
    _case((3, 7), 5, dtype="int64"),
    _case((3, 7), 5, index="int32", dtype="float32"),
    _case((3, 7), 5, index="float32"),
    _case((3, 7), 5).but(constant=(0, 1)),
    _case((3, 7), 5).but(constant=(1, 2)),
]


# ONNX Runtime has OneHot for some pairs of types only; the formula is plain enough
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    def plain(case: Case) -> list[np.ndarray]:
        indices, depth, (off, on) = (np.asarray(x) for x in case.inputs)
        axis = dict(case.attributes).get("axis", -1)
        rows = np.full((indices.size, int(depth)), off)
        for row, index in zip(rows, indices.reshape(-1).astype(int), strict=True):
            if -depth <= index < depth:
                row[index] = on
        return [np.moveaxis(rows.reshape(*indices.shape, int(depth)), -1, axis)]

    check_reference(case, plain)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_reference_against_onnxruntime(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_indices_that_are_no_numbers_match_nothing() -> None:
    indices = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2, -1, 1.7], np.float32)
    inputs = (indices, np.array(4, np.int64), np.array([0, 1], np.float32))
    case = Case("OneHot", inputs, {}, 11, (1,))
    on = case.expected()[0]
    assert on.sum() == 3 and on[5, 2] == on[6, 3] == on[7, 1] == 1
    check_device(case)


def test_a_computed_depth_is_read_first() -> None:
    check_device(_case((3, 7), 5).but(constant=(), output_dtypes=("float32",)))


def test_errors() -> None:
    good = _case((3, 7), 5)
    indices, depth, values = good.inputs
    bad = [
        (good.but(inputs=(indices, np.array(0), values)), "depth"),
        (good.but(inputs=(indices, depth, values[:1])), "values"),
        (good.but(attributes={"axis": 3}), "axis 3"),
    ]
    for case, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            case.types()
