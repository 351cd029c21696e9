"""Integers whose interval is known stay on the device; those that could overflow do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.passes.rewriting import check, rewritten
from tests.small_models import assert_same, expected, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.ir import Graph
from vkconv.passes import assign_layouts
from vkconv.passes.bound_integers import bound_integers

X = {"x": [2, 3, 40]}
#: positions along an axis of 40
FOUND = [node("TopK", "x k", "v i", axis=2)]
CONSTANTS = {
    "k": np.array([5]),
    "c7": np.array(7),
    "c-3": np.array([-3]),
    "big": np.array(2**31 // 30),
    "huge": np.array(2**40),
    "row": np.arange(5, dtype=np.int64),
    "axes": np.array([1]),
    "zero": np.array([0]),
    "none": np.zeros((2, 3, 0), np.int64),
}


def bounded(nodes: list[Any], inputs: dict[str, Any] | None = None, dtype: str = "int64") -> Graph:
    proto = model(nodes, inputs or X, {"y": (dtype, None)}, CONSTANTS)
    return rewritten(proto, bound_integers)


@pytest.mark.parametrize(
    ("nodes", "bounds"),
    [
        ([node("Identity", "i", "y")], (0, 39)),
        ([node("Div", "i c7", "y")], (0, 5)),
        ([node("Div", "i c-3", "y")], (-13, 13)),
        ([node("Mod", "i c7", "y")], (0, 6)),
        ([node("Mod", "i c-3", "y")], (-2, 2)),
        ([node("Mod", "i k", "a"), node("Sub", "a i", "y")], (-39, 4)),
        ([node("Mul", "i c-3", "y")], (-117, 0)),
        ([node("Add", "i row", "y")], (0, 43)),
        ([node("Neg", "i", "a"), node("Abs", "a", "y")], (0, 39)),
        ([node("Max", "i c7", "a"), node("Min", "a k", "y")], (5, 5)),
        ([node("Clip", "i c7", "y")], (7, 39)),
        ([node("Clip", "i", "y")], (0, 39)),
        ([node("Clip", "i zero c7", "y")], (0, 7)),
        ([node("Clip", "i c7 c-3", "y")], (-3, -3)),
        ([node("Concat", "i row3", "y", axis=2)], (0, 39)),
        ([node("Greater", "i c7", "b"), node("Where", "b i c-3", "y")], (-3, 39)),
        ([node("Greater", "i c7", "b"), node("Cast", "b", "y", to=7)], (0, 1)),
        ([node("ReduceSum", "i axes", "y")], (0, 39 * 30)),
        ([node("ReduceMax", "i", "y", axes=[1])], (0, 39)),
        ([node("ArgMax", "x", "y", axis=1)], (0, 2)),
        ([node("Split", "i", "a y s3", axis=1)], (0, 39)),
    ],
)
def test_intervals(nodes: list[Any], bounds: tuple[int, int]) -> None:
    constants = CONSTANTS | {"row3": np.zeros((2, 3, 1), np.int64)}
    proto = model(FOUND + nodes, X, {"y": ("int64", None)}, constants)
    graph = rewritten(proto, bound_integers)
    assert graph.outputs[0].bounds == bounds


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Cast", "x", "y", to=7)],
        [node("Div", "i zero", "y")],
        [node("Mod", "row2 i", "y")],
        [node("Concat", "i n", "y", axis=2)],
        [node("Shape", "n", "s"), node("Add", "n c7", "y")],
    ],
)
def test_what_is_not_known(nodes: list[Any]) -> None:
    """Floats may be any number, inputs hold what the caller says."""
    constants = CONSTANTS | {"row2": np.ones((2, 3, 5), np.int64)}
    inputs = X | {"n": ("int64", [2, 3, 5])}
    proto = model(FOUND + nodes, inputs, {"y": ("int64", None)}, constants)
    assert rewritten(proto, bound_integers).outputs[0].bounds is None


def test_narrow_types_wrap_around() -> None:
    nodes = [node("Cast", "i", "a", to=6), node("Mul", "a m", "y")]
    proto = model(FOUND + nodes, X, {"y": ("int32", None)},
                  CONSTANTS | {"m": np.array(2**30, np.int32)})  # fmt: skip
    graph = rewritten(proto, bound_integers)
    assert graph.outputs[0].bounds == (-(2**31), 2**31 - 1)


def where(graph: Graph) -> dict[str, str | None]:
    assign_layouts(graph, DeviceCaps())
    return {n.outputs[0].name: n.host_reason for n in graph.nodes}


def test_what_fits_runs_on_the_device() -> None:
    nodes = [node("Mod", "i c7", "a"), node("Mul", "a big", "y")]
    assert where(bounded(FOUND + nodes)) == {"v": None, "a": None, "y": None}


def test_what_could_overflow_runs_on_the_host() -> None:
    found = where(bounded([*FOUND, node("Mul", "i big", "y")]))
    assert found["v"] is None and found["y"] == "Mul has no kernel for int64"
    # and what is computed from it, though it would fit again
    found = where(bounded([*FOUND, node("Add", "i huge", "a"), node("Mod", "a c7", "y")]))
    assert found["y"] == "Mod has no kernel for int64"


def test_constants_that_the_device_cannot_hold() -> None:
    """The result would fit: huge % (i + 1) < 41."""
    nodes = [*FOUND, node("Add", "i one", "a"), node("Mod", "huge a", "y")]
    proto = model(nodes, X, {"y": ("int64", None)}, CONSTANTS | {"one": np.array(1)})
    found = where(rewritten(proto, bound_integers))
    assert found["a"] is None and found["y"] == "Mod has no kernel for int64"


def test_integers_of_the_caller_are_computed_on_the_host() -> None:
    inputs = {"n": ("int64", [4]), "m": ("int64", [4])}
    assert where(bounded([node("Add", "n m", "y")], inputs))["y"] == "Add has no kernel for int64"


def test_bounds_outlive_a_copy() -> None:
    graph = bounded([*FOUND, node("Mod", "i c7", "y")])
    assert graph.copy().outputs[0].bounds == (0, 6)


def test_the_meaning_stays() -> None:
    nodes = [node("Div", "i c7", "a"), node("Mod", "i c7", "b"), node("Add", "a b", "y")]
    proto = model(FOUND + nodes, X, {"y": ("int64", None), "v": None}, CONSTANTS)
    check(proto, ["TopK", "Div", "Mod", "Add"], bound_integers)


CLIPPED = [node("Cast", "x", "i", to=7), node("Clip", "i low c7", "c"), node("Mul", "c c7", "y")]


def test_floats_that_are_clipped_as_integers() -> None:
    """Whatever the floats are: the device's cast saturates."""
    constants = CONSTANTS | {"low": np.array(-3)}
    proto = model(CLIPPED, X, {"y": ("int64", None)}, constants)
    graph = rewritten(proto, bound_integers)
    assert [n.outputs[0].bounds for n in graph.nodes] == [(-(2**31), 2**31 - 1), (-3, 7), (-21, 49)]
    x = np.linspace(-20, 20, 240, dtype=np.float32).reshape(2, 3, 40)
    x[0, 0, :6] = 1e12, -1e12, 3e9, -3e9, 7e18, -7e18
    with InferenceSession(proto) as session:
        assert_same(session.run(None, {"x": x}), expected(proto, {"x": x}))
        assert {p.where for p in session.placement} == {"gpu"}


@pytest.mark.parametrize(
    "reader",
    [
        node("Clip", "i c7", "c"),
        node("Clip", "i c7 n", "c"),
        node("Identity", "i", "c"),
        node("Min", "i c7", "c"),
    ],
)
def test_floats_that_are_not_only_clipped(reader: onnx.NodeProto) -> None:
    """One bound alone, one of the caller's, or another reader."""
    nodes = [node("Cast", "x", "i", to=7), reader, node("Clip", "i c7 c7", "d")]
    inputs = X | {"n": ("int64", [])}
    proto = model(nodes, inputs, {"c": ("int64", None), "d": ("int64", None)}, CONSTANTS)
    assert rewritten(proto, bound_integers).nodes[0].outputs[0].bounds is None
