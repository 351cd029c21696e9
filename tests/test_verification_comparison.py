"""What ``vkconv.verify`` takes for equal: comparison, and the tolerance of an operator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.small_models import floats
from vkconv.ir import Node, TensorType, Value
from vkconv.verification import compare, reduction_length, tolerance


def test_compare_finds_the_worst_element() -> None:
    wanted = floats(3, 4, 5)
    got = wanted.copy()
    assert compare("v", got, wanted).holds
    got[1, 2, 3] += 1.0
    got[0, 0, 0] += 0.1
    found = compare("v", got, wanted)
    assert not found.holds and found.index == (1, 2, 3) and found.wrong == 2
    assert found.got == pytest.approx(float(got[1, 2, 3])) and "[1,2,3]" in found.worst
    exact = float(
        np.sum((got.astype(np.float64) - wanted) ** 2) / np.sum(wanted.astype(float) ** 2)
    )
    assert found.nmse == pytest.approx(exact, 1e-6)


@pytest.mark.parametrize(
    ("got", "wanted", "holds"),
    [
        ([np.nan, 1], [np.nan, 1], True),
        ([np.inf, 1], [np.inf, 1], True),
        ([np.inf, 1], [-np.inf, 1], False),
        ([np.nan, 1], [0, 1], False),
        ([0, 1], [np.nan, 1], False),
        ([0, 0], [0, 0], True),
        ([1e-3, 0], [0, 0], False),
    ],
)
def test_compare_knows_what_is_no_number(
    got: list[float], wanted: list[float], holds: bool
) -> None:
    found = compare("v", np.float32(got), np.float32(wanted))
    assert found.holds is holds
    assert holds or found.index == (0,)


def test_compare_types_and_integers() -> None:
    assert "float32[2,3]" in compare("v", floats(3, 2), floats(2, 3)).problem
    assert not compare("v", floats(2).astype(np.float64), floats(2)).holds
    assert compare("v", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).holds
    got, wanted = np.array([[1, 2], [3, 5]]), np.array([[1, 2], [3, 4]])
    found = compare("v", got, wanted)
    assert not found.holds and found.index == (1, 1) and (found.got, found.wanted) == (5, 4)
    assert not compare("v", np.array(["a"], object), np.array(["b"], object)).holds


def test_tolerance_grows_with_precision_and_length() -> None:
    assert tolerance("float32").nmse == 1e-6 and tolerance("float16").nmse == 1e-4
    assert tolerance("float32", 400).scaled == pytest.approx(20 * tolerance("float32").scaled)
    assert dataclasses.astuple(tolerance("int64", 9)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("op_type", "inputs", "output", "attributes", "length"),
    [
        ("Conv", [(1, 8, 9, 9), (4, 8, 3, 3)], (1, 4, 7, 7), {}, 72),
        ("MatMul", [(5, 31), (31, 7)], (5, 7), {}, 31),
        ("ReduceSum", [(5, 40)], (5, 1), {}, 40),
        ("Softmax", [(5, 40)], (5, 40), {}, 40),
        ("Add", [(5, 40), (5, 40)], (5, 40), {}, 1),
    ],
)
def test_reduction_length(
    op_type: str,
    inputs: list[tuple[int, ...]],
    output: tuple[int, ...],
    attributes: dict[str, Any],
    length: int,
) -> None:
    values: list[Value | None] = [
        Value(f"v{i}", TensorType("float32", shape)) for i, shape in enumerate(inputs)
    ]
    made = Node(op_type, values, [Value("y", TensorType("float32", output))], attributes, opset=17)
    assert reduction_length(made) == length
