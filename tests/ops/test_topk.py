"""vkconv/ops/topk.py, sorting.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _case(
    shape: tuple[int, ...],
    k: int,
    axis: int = -1,
    largest: int = 1,
    dtype: str = "float32",
    spread: int = 0,
    **more: object,
) -> Case:
    """``spread``: so few different numbers that many are equal; 0 for all different."""
    x = random(*shape, dtype=dtype)
    if spread:
        x = random(*shape, low=-spread, high=spread, dtype="int32").astype(dtype)
    elif np.dtype(dtype).kind == "i":
        x = random(*shape, low=-1000, high=1000, dtype=dtype)
    attributes = {"axis": axis, "largest": largest}
    inputs = (x, np.array([k], np.int64))
    return Case("TopK", inputs, attributes, 11, (1,), outputs=2, **more)


CASES = [
    *(
        _case(shape, k, axis, largest, spread=spread)
        for shape, k, axis in [
            ((17,), 5, 0),
            ((17,), 17, 0),
            ((5, 7, 3), 4, 1),
            ((5, 130), 100, -1),
            ((300, 5), 65, 0),
            ((3, 2000), 300, 1),
            ((1, 1500), 1500, 1),
            ((3, 80, 7), 1, 1),
            ((40, 9), 1, 1),
            ((600, 21), 5, 1),
            ((30, 21, 20), 4, 1),
        ]
        for largest in (0, 1)
        for spread in (0, 3)
    ),
    _case((20000,), 1000, 0),
    _case((20000,), 100, 0, 0, spread=2),
    _case((5, 40), 10, 1, 0, "int32"),
    _case((5, 40), 10, 1, 1, "int64"),
    _case((5, 40), 10, 1, 1, "uint8", spread=0),
    _case((5, 40), 10, 1, 1, "float16"),
    _case((5, 40), 0),
    _case((0, 40), 3),
    _case((5, 40), 10).but(opset=10, attributes={"axis": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    if np.asarray(case.inputs[0]).dtype in (np.uint8, np.float16):
        # ONNX Runtime has no kernel for them; the order is that of wider numbers
        wide = case.but(inputs=(case.inputs[0].astype(np.float32), case.inputs[1]))
        check_reference(wide)
        assert np.array_equal(wide.expected()[1], case.expected()[1])
    else:
        check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [1, 8, 100])
@pytest.mark.parametrize("rows", [2, 513])
def test_special_numbers(largest: int, k: int, rows: int) -> None:
    few = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-40, -np.nan, 3e38], np.float32)
    x = np.resize(few, (rows, 150))
    inputs = (x, np.array([k], np.int64))
    case = Case("TopK", inputs, {"largest": largest}, 11, (1,), outputs=2)
    check_device(case)
    values, indices = case.expected()
    assert np.isnan(values[0, 0]) == bool(largest) and indices[0, 0] == (2 if largest else 4)


def test_one_output() -> None:
    check_device(_case((5, 40), 10).but(outputs=1))
    check_device(_case((5, 40), 1).but(outputs=1))


def test_k_as_an_attribute() -> None:
    x = random(5, 40)
    check_device(Case("TopK", (x,), {"axis": 1, "k": 7}, 1, outputs=2))


def test_a_computed_k_is_read_first() -> None:
    case = _case((5, 40), 7).but(constant=(), output_dtypes=("float32", "int64"))
    with vkconv.InferenceSession(case.model()) as session:
        for k in (7, 3):
            values, indices = session.run(None, {**case.feeds(), "input_1": np.array([k])})
            expected = case.expected((case.inputs[0], np.array([k])))
            assert np.array_equal(values, expected[0]) and np.array_equal(indices, expected[1])
        assert [p.where for p in session.placement] == ["gpu"]
        for k in (41, -1):
            with pytest.raises(vkconv.InvalidModelError, match=f"k is {k}"):
                session.run(None, {**case.feeds(), "input_1": np.array([k])})


def test_errors() -> None:
    for k, message in [(41, "k is 41"), (-1, "k is -1")]:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            _case((5, 40), k).types()
    with pytest.raises(vkconv.InvalidModelError, match="not one number"):
        Case("TopK", (random(5),), {}, 11).types()
