"""Constant, ConstantOfShape, Shape, Size and Range: what is folded when a model is planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import vkconv
from tests.harness import Case, check_device, check_reference, random
from vkconv.ops.operator import UnknownShapeError
from vkconv.ops.registry import REGISTRY


def _scalars(*values: Any, dtype: str = "int64") -> tuple[np.ndarray, ...]:
    return tuple(np.array(v, dtype) for v in values)


RANGES = [
    Case("Range", _scalars(2, 11, 3), {}, 11, (0, 1, 2)),
    Case("Range", _scalars(10, -3, -4, dtype="int32"), {}, 11, (0, 1, 2)),
    Case("Range", _scalars(5, 5, 1), {}, 11, (0, 1, 2)),
    Case("Range", _scalars(0.5, 3.1, 0.25, dtype="float32"), {}, 11, (0, 1, 2)),
]
SHAPES = [
    Case("Shape", (random(2, 3, 5),)),
    Case("Shape", (random(2, 3, 5),), {"start": 1}),
    Case("Shape", (random(2, 3, 5),), {"start": -2, "end": -1}),
    Case("Shape", (random(2, 3, 5),), {"start": -9, "end": 9}),
    Case("Shape", (random(2, 3, 5),), {}, 9),
    Case("Size", (random(2, 3, 5),)),
]


def _filled(value: Any = None) -> Case:
    # the harness hands attributes to reader and node alike, so a tensor is given as its array
    return Case("ConstantOfShape", (np.array([2, 3]),), {} if value is None else value, 9, (0,))


@pytest.mark.parametrize("case", [*RANGES, *SHAPES, _filled()], ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", [*RANGES, *SHAPES, _filled()], ids=str)
def test_folded(case: Case) -> None:
    check_device(case, where="folded")


def test_computed_bounds_of_a_range_run_on_the_host() -> None:
    case = RANGES[0].but(constant=())
    with pytest.raises(UnknownShapeError):
        case.types()
    check_device(case.but(output_dtypes=("int64",)), where="host")


def _constant(**attributes: Any) -> list[np.ndarray]:
    node = helper.make_node("Constant", [], ["y"], **attributes)
    output = helper.make_empty_tensor_value_info("y")
    output.type.tensor_type.elem_type = 1
    graph = helper.make_graph([node], "constant", [], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with vkconv.InferenceSession(model) as session:
        return list(session.run(None, {}))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_float": 1.5}, np.array(1.5, np.float32)),
        ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
        ({"value_int": 3}, np.array(3)),
        ({"value_ints": [3, 4]}, np.array([3, 4])),
        ({"value": numpy_helper.from_array(random(2, 3))}, random(2, 3)),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_constant(attributes: dict[str, Any], expected: np.ndarray) -> None:
    (y,) = _constant(**attributes)
    assert y.dtype == expected.dtype
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("attributes", [{}, {"value_int": 1, "value_float": 2.0}], ids=str)
def test_a_constant_has_one_value(attributes: dict[str, Any]) -> None:
    with pytest.raises(vkconv.InvalidModelError, match="exactly one"):
        _constant(**attributes)


def test_constant_of_shape_with_a_value() -> None:
    operator = REGISTRY["", "ConstantOfShape"](value=np.array([7], np.int64))
    y = operator.reference(np.array([2, 0, 3]))
    assert y.shape == (2, 0, 3) and y.dtype == np.int64
    assert (operator.reference(np.array([4])) == 7).all()


@pytest.mark.parametrize(
    "case",
    [
        Case("Range", _scalars(0, 5, 0), {}, 11, (0, 1, 2)),
        Case("Range", _scalars(0, np.inf, 1, dtype="float32"), {}, 11, (0, 1, 2)),
        Case("ConstantOfShape", (np.array([2, -1]),), {}, 9, (0,)),
    ],
    ids=str,
)
def test_contradictions_are_errors(case: Case) -> None:
    with pytest.raises(vkconv.InvalidModelError, match="node_under_test"):
        case.types()
