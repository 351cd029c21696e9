"""Operators that only the standard's definition makes runnable."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.errors import UnsupportedModelError
from vkconv.onnx_reader import read_model
from vkconv.ops.registry import is_registered

pytestmark = pytest.mark.filterwarnings("ignore:nodes that run on the host:RuntimeWarning")


def operators(proto: onnx.ModelProto, *lacking: str) -> list[str]:
    """What a reader makes of the model that does not know ``lacking``."""

    def known(domain: str, op_type: str) -> bool:
        return is_registered(domain, op_type) and op_type not in lacking

    return [n.op_type for n in read_model(proto, known).nodes]


def run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    with InferenceSession(proto) as session:
        return session.run(None, feeds)


def test_known_operators_stay() -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]})
    assert operators(proto) == ["Relu"]
    assert [n.op_type for n in read_model(proto).nodes] == ["Relu"]


def test_attributes_and_their_defaults() -> None:
    for attributes in ({}, {"alpha": 0.25}):
        proto = model([node("Elu", "x", "y", **attributes)], {"x": [7]}, {"y": [7]}, opset=22)
        before = proto.SerializeToString()
        graph = read_model(proto, lambda domain, op: op != "Elu")
        assert "Elu" not in [n.op_type for n in graph.nodes] and len(graph.nodes) > 3
        constants = [n.attributes for n in graph.nodes if n.op_type == "Constant"]
        alpha = attributes.get("alpha", 1.0)
        assert any(a.get("value_float", a.get("value")) == alpha for a in constants)
        assert proto.SerializeToString() == before


def test_definitions_inside_definitions() -> None:
    """SoftmaxCrossEntropyLoss uses NegativeLogLikelihoodLoss; both depend on their inputs."""
    loss = node("SoftmaxCrossEntropyLoss", "x t w", "y", ignore_index=2)
    proto = model(
        [node("Neg", "a", "x"), loss],
        {"a": [3, 5, 2], "t": ("int64", [3, 2]), "w": [5]},
        {"y": []},
        opset=13,
    )
    assert "NegativeLogLikelihoodLoss" not in operators(proto)
    feeds = {
        "a": floats(3, 5, 2), "w": np.abs(floats(5)),
        "t": np.array([[0, 2], [4, 1], [3, 3]]),
    }  # fmt: skip
    assert_same(run(proto, feeds), expected(proto, feeds))


def test_omitted_inputs_and_outputs() -> None:
    crop = helper.make_node("LayerNormalization", ["x", "s", ""], ["y"], axis=1)
    proto = model([crop], {"x": [2, 8], "s": [8]}, {"y": [2, 8]})
    names = operators(proto, "LayerNormalization")
    assert "LayerNormalization" not in names and "Sqrt" in names


def test_inside_a_branch() -> None:
    def branch(name: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("o_" + name, TensorProto.FLOAT, [4])
        nodes[-1].output[0] = "o_" + name
        return helper.make_graph(nodes, name, [], [out])

    choice = helper.make_node(
        "If", ["c"], ["y"],
        then_branch=branch("t", [node("Mish", "x", "o")]),
        else_branch=branch("e", [node("HardSwish", "x", "o")]),
    )  # fmt: skip
    proto = model([choice], {"x": [4], "c": ("bool", [])}, {"y": [4]}, opset=18)
    (read,) = read_model(proto, lambda _, op_type: op_type not in ("Mish", "HardSwish")).nodes
    inside = [n.op_type for g in ("then_branch", "else_branch") for n in read.attributes[g].nodes]
    assert "Tanh" in inside and "HardSigmoid" in inside
    for c in (True, False):
        feeds = {"x": floats(4), "c": np.array(c)}
        assert_same(run(proto, feeds), expected(proto, feeds))


@pytest.mark.parametrize("opset", [17, 22, 28])
def test_at_newer_opsets_than_the_definition_s(opset: int) -> None:
    constants = {"n": np.array(10, np.int64)}
    proto = model([node("HannWindow", "n", "y")], {}, {"y": [10]}, constants, opset=opset)
    (y,) = run(proto, {})
    assert np.allclose(y, np.sin(np.pi * np.arange(10) / 10) ** 2, atol=1e-6)


def test_what_has_no_definition_is_reported() -> None:
    nodes = [node("Det", "x", "d"), node("Odd", "d", "y", domain="com.example")]
    proto = model(nodes, {"x": [2, 2]}, {"y": []}, domains={"com.example": 1})
    with pytest.raises(UnsupportedModelError, match="Det") as caught:
        InferenceSession(proto)
    assert len(caught.value.nodes) == 2


def test_definitions_that_cannot_be_built_are_reported() -> None:
    """A context-dependent definition, and an input whose type onnx cannot infer."""
    nodes = [node("Odd", "x", "u", domain="com.example"), node("Loss", "u t", "y")]
    nodes[1].op_type = "SoftmaxCrossEntropyLoss"
    proto = model(
        nodes, {"x": [3, 5], "t": ("int64", [3])}, {"y": []}, domains={"com.example": 1}, opset=13
    )
    with pytest.raises(UnsupportedModelError, match="SoftmaxCrossEntropyLoss"):
        InferenceSession(proto)
