"""Models that are valid and yet cannot be run: all that is unknown is listed, in one line."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from tests.small_models import model, node
from tests.test_onnx_reader import refused, small, unsupported
from vkconv.onnx_reader import read_model
from vkconv.placement import problems


def test_all_unknown_operators_are_listed_in_one_line() -> None:
    nodes = [node("Nonsense", "x", f"a{i}", f"bad{i}") for i in range(5)]
    nodes += [node("Relu", "a0", "r"), node("Magic", "r", "y", "magic", domain="com.example")]
    error = unsupported(model(nodes, {"x": [1]}, {"y": [1]}, domains={"com.example": 3}))
    assert [p.node for p in error.nodes] == [*(f"bad{i}" for i in range(5)), "magic"]
    assert "6 nodes" in str(error) and "com.example.Magic, opset 3" in str(error)


def test_opset_too_new() -> None:
    error = unsupported(model([node("Relu", "x", "y")], {"x": [1]}, {"y": [1]}, opset=99))
    assert "opset 99 is newer than" in str(error)


def test_no_opset() -> None:
    proto = small()
    del proto.opset_import[:]
    assert "which opset" in refused(proto)
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "which opset" in refused(proto)
    proto.ir_version = 2
    assert read_model(proto).opsets[""] == 1


def test_default_domain_by_its_long_name() -> None:
    proto = small()
    proto.opset_import[0].domain = "ai.onnx"
    for item in proto.graph.node:
        item.domain = "ai.onnx"
    graph = read_model(proto)
    assert graph.opsets == {"": 17} and not problems(graph)


def test_element_types_that_are_not_known() -> None:
    strange = helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    proto = model([node("Add", "x w", "y"), node("Constant", "", "z", value=strange)],
                  {"x": [2]}, {"y": [2], "z": [2]})  # fmt: skip
    proto.graph.initializer.append(strange)
    error = unsupported(proto)
    assert {p.node for p in error.nodes} == {"w", "Constant:z"} and "bfloat16" in str(error)


@pytest.mark.parametrize("kind", ["sequence", "optional", "bfloat16", "none"])
def test_inputs_that_are_no_known_tensors(kind: str) -> None:
    proto = model([node("Identity", "x", "y")], {"x": [1]}, {"y": [1]})
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    types = {
        "sequence": helper.make_sequence_type_proto(tensor),
        "optional": helper.make_optional_type_proto(tensor),
        "bfloat16": helper.make_tensor_type_proto(TensorProto.BFLOAT16, [1]),
        "none": onnx.TypeProto(),
    }
    proto.graph.input[0].type.CopyFrom(types[kind])
    error = unsupported(proto)
    assert [p.node for p in error.nodes] == ["x"] and "graph input" in str(error)
