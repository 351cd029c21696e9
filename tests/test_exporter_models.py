"""What exporters write around a net: long shape code, computed weights, hundreds of branches."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.growth import assert_grows_linearly
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.ir import Array

INDICES: dict[str, Array] = {
    "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "minus": np.array([-1]),
}  # fmt: skip


def shape_code(nodes: int) -> onnx.ModelProto:
    """A Reshape whose target takes this many nodes to compute, as torch's exporter traces them."""
    made = [node("Shape", "x", "s"), node("Gather", "s two", "d0")]
    last = "d0"
    for i in range((nodes - len(made)) // 9):
        made += [
            node("Add", f"{last} one", f"a{i}"),
            node("Mul", f"a{i} two", f"m{i}"),
            node("Div", f"m{i} two", f"q{i}"),
            node("Sub", f"q{i} one", f"r{i}"),
            node("Concat", f"r{i} one", f"c{i}", axis=0),
            node("Slice", f"c{i} zero one", f"l{i}"),
            node("Unsqueeze", f"l{i} zero", f"u{i}"),
            node("Squeeze", f"u{i} zero", f"z{i}"),
            node("Cast", f"z{i}", f"t{i}", to=TensorProto.INT64),
        ]
        last = f"t{i}"
    made += [
        node("Concat", f"minus {last}", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("Relu", "flat", "y"),
    ]
    return model(made, {"x": ["n", "c", "w"]}, {"y": None}, INDICES)


def test_thousands_of_nodes_of_shape_code_are_folded_at_once() -> None:
    def fold(nodes: int) -> None:
        proto = shape_code(nodes)
        assert len(proto.graph.node) >= nodes - 10
        with InferenceSession(proto) as session:
            (y,) = session.run(None, {"x": floats(2, 3, 4)})
            assert np.array_equal(y, np.maximum(floats(2, 3, 4).reshape(6, 4), 0))
            where = {p.op_type: p.where for p in session.placement}
        assert {op for op, place in where.items() if place != "folded"} == {"Reshape", "Relu"}

    assert_grows_linearly(fold, 5000)


def branches_over_shapes(count: int) -> onnx.ModelProto:
    """As torch.jit.script guards every squeeze by an If on the size."""
    made = [node("Shape", "x", "s"), node("Gather", "s zero", "rows")]
    last = "x"
    for i in range(count):
        out = helper.make_tensor_value_info(f"o{i}", TensorProto.FLOAT, None)
        other = helper.make_tensor_value_info(f"p{i}", TensorProto.FLOAT, None)
        then_branch = helper.make_graph([node("Relu", last, f"o{i}")], f"t{i}", [], [out])
        else_branch = helper.make_graph([node("Neg", last, f"p{i}")], f"e{i}", [], [other])
        made += [
            node("Equal", "rows one", f"c{i}"),
            node("If", f"c{i}", f"y{i}", then_branch=then_branch, else_branch=else_branch),
        ]
        last = f"y{i}"
    return model(made, {"x": ["n", 4]}, {last: None}, INDICES)


def test_many_branches_over_shapes_are_decided_at_once() -> None:
    def decide(count: int) -> None:
        proto = branches_over_shapes(count)
        with InferenceSession(proto) as session:
            for rows in (1, 2):
                feeds = {"x": floats(rows, 4)}
                assert_same(session.run(None, feeds), expected(proto, feeds))
            assert all(p.where == "folded" for p in session.placement if p.op_type == "If")

    assert_grows_linearly(decide, 320)


@pytest.mark.parametrize("opset", [11, 17])
def test_weights_computed_from_constants(opset: int) -> None:
    """Weight normalisation and standardisation, as exporters leave them in the graph."""
    constants = {"v": floats(8, 4, 3, 3), "g": np.abs(floats(8, 1, 1, 1)), "b": floats(8)}
    made = [
        node("ReduceL2", "v", "length", axes=[1, 2, 3], keepdims=1),
        node("Div", "v length", "unit"),
        node("Mul", "unit g", "scaled"),
        node("Transpose", "scaled", "turned", perm=[1, 0, 2, 3]),
        node("Transpose", "turned", "w", perm=[1, 0, 2, 3]),
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "y"),
    ]
    proto = model(made, {"x": [1, 4, 6, 5]}, {"y": None}, constants, opset=opset)
    feeds = {"x": floats(1, 4, 6, 5)}
    with InferenceSession(proto, strict=True) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))
        where = [p.where for p in session.placement]
    assert where == ["folded"] * 5 + ["gpu", "fused"]


def test_shapes_that_depend_on_constants_only_are_folded() -> None:
    """NonZero and Unique of constants: their size is known when the model is planned."""
    constants = {"mask": np.array([0, 1, 1, 0, 1], bool), "table": floats(5, 3)}
    made = [
        node("NonZero", "mask", "where"),
        node("Squeeze", "where", "rows", axes=[0]),
        node("Gather", "table rows", "picked"),
        node("MatMul", "x picked", "y"),
    ]
    proto = model(made, {"x": [2, 3]}, {"y": None}, constants, opset=11)
    feeds = {"x": floats(2, 3)}
    with InferenceSession(proto, strict=True) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))
        assert [p.where for p in session.placement] == ["folded"] * 3 + ["gpu"]
