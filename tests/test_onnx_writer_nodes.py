"""Nodes and constants of the graph as they are written: every kind of node there is."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from tests.small_models import floats, model, node, onnxruntime_session
from vkconv.onnx_reader import open_model
from vkconv.onnx_writer import ModelEditor
from vkconv.onnx_writer.nodes import tensor_proto

#: modules of onnx's node tests whose models are written anew, node by node
OPERATORS = """
affinegrid averagepool batch_normalization cast clip concat constant conv convtranspose deformconv
depthtospace dropout einsum gathernd gemm gridsample if_ instance_normalization layernormalization
loop lstm maxpool maxunpool nonmaxsuppression optionalgetelement pad qlinearconv quantizelinear
reducesum resize reshape roialign scan sequence_map sequenceinsert slice split splittosequence
string_concat topk transpose unique where
"""


def onnx_models() -> list[Any]:
    """Test cases of these modules; what else this run may have loaded is left out."""
    import onnx.backend.test.case.node as cases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name in OPERATORS.split():
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
    wanted = {name.strip("_").replace("_", "") for name in OPERATORS.split()}
    found = {
        case.name: case
        for case in cases._NodeTestCases
        if "expanded" not in case.name and wanted & {_kind(n) for n in case.model.graph.node}
    }
    return list(found.values())


def _kind(item: onnx.NodeProto) -> str:
    return str(item.op_type.lower())


def written_anew(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every node written from the graph instead of copied from the file."""
    editor = ModelEditor(open_model(proto))
    for graph in editor.graphs:
        for item in graph.nodes:
            item.fused.append("something")
    return editor.write({})


def run(proto: onnx.ModelProto, arrays: list[Any]) -> list[Any] | None:
    """What onnxruntime makes of the inputs; None where it does not run the model."""
    names = [i.name for i in proto.graph.input]
    feeds = {n: a for n, a in zip(names, arrays, strict=False) if a is not None}
    try:
        return list(onnxruntime_session(proto).run(None, feeds))
    except Exception:
        return None


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) or isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_every_kind_of_node_can_be_written() -> None:
    """If, Loop, Scan, sequences, optionals, text: the same to onnx's checker and onnxruntime."""
    cases = onnx_models()
    ran = []
    for case in cases:
        proto = case.model
        before = proto.SerializeToString()
        made = written_anew(proto)
        assert proto.SerializeToString() == before, case.name
        onnx.checker.check_model(made)
        assert [n.op_type for n in made.graph.node] == [n.op_type for n in proto.graph.node]
        inputs = list(case.data_sets[0][0])
        wanted = run(proto, inputs)
        if wanted is not None:
            assert equal(wanted, run(made, inputs)), case.name
            ran.append(case.name)
    assert len(cases) > 300 and len(ran) > 200
    for kind in ("if", "loop", "scan", "sequence", "conv", "deform", "lstm"):
        assert any(kind in name for name in ran), kind


def test_attributes_are_written_in_their_types() -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]})
    editor = ModelEditor(open_model(proto))
    [relu] = editor.graph.nodes
    relu.fused = ["other"]
    array = floats(2, 2)
    given = {
        "i": 3,
        "f": 0.5,
        "s": "text",
        "is": (1, 2),
        "fs": (0.5, 2.0),
        "ss": ("a", "b"),
        "t": array,
    }
    relu.attributes.update(given)
    made = {a.name: a for a in editor.write({}).graph.node[0].attribute}
    kinds = AttributeProto
    assert {name: a.type for name, a in made.items()} == {
        "i": kinds.INT, "f": kinds.FLOAT, "s": kinds.STRING, "is": kinds.INTS, "fs": kinds.FLOATS,
        "ss": kinds.STRINGS, "t": kinds.TENSOR,
    }  # fmt: skip
    assert np.array_equal(numpy_helper.to_array(made["t"].t), array)
    assert list(made["is"].ints) == [1, 2] and made["s"].s == b"text"


def test_scalars_and_float16_keep_shape_and_type() -> None:
    for array in (np.float16(0.5), np.array(3), floats(2, 0), np.array(["a", "b"], object)):
        made = tensor_proto("t", np.asarray(array))
        assert tuple(made.dims) == np.shape(array)
        assert np.array_equal(numpy_helper.to_array(made).astype(object), np.asarray(array, object))
    assert tensor_proto("t", np.zeros(1, np.float16)).data_type == TensorProto.FLOAT16
