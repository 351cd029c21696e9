"""Fusions that make operators of a newer opset raise the model to it, or are left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import fusion
from vkconv.fusion import fuse
from vkconv.ir import Fusion, Graph, Unfused, Value


def to_newer_operator(graph: Graph) -> None:
    """A stand-in for fusion that makes DeformConv, which opset 17 does not have."""
    kind = "deformable"
    if any(entry.kind == kind for entry in graph.unfused):
        return
    [conv] = graph.nodes
    conv.op_type, conv.opset, conv.fused = "DeformConv", 19, ["sampling"]
    offset = Value("offset", None, np.zeros((1, 2, 4, 4), np.float32))
    conv.inputs = [conv.inputs[0], conv.inputs[1], offset]
    graph.fusions.append(Fusion(kind, ("sampling",), conv.name, "y"))


def one_conv() -> onnx.ModelProto:
    return model(
        [node("Conv", "x w", "y")], {"x": [1, 3, 4, 4]}, {"y": None}, {"w": floats(3, 3, 1, 1)}
    )


def test_the_opset_is_raised_where_fusion_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "fuse_linear", to_newer_operator)
    proto = one_conv()
    proto.producer_name, proto.doc_string = "someone", "a model"
    proto.metadata_props.add(key="names", value="cat")
    fused = fuse(proto)
    assert fused.is_proven
    assert fused.report.notes == (
        "opset raised from 17 to 19, which has the operators that fusion made",
    )
    made = fused.to_proto()
    onnx.checker.check_model(made, full_check=True)
    assert [(i.domain, i.version) for i in made.opset_import] == [("", 19)]
    assert made.graph.node[0].op_type == "DeformConv" and made.graph.node[0].name == "Conv:y"
    assert (made.producer_name, made.doc_string) == ("someone", "a model")
    assert [p.key for p in made.metadata_props] == ["names", "vkconv.fused"]


def test_where_the_opset_cannot_be_raised_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from vkconv.onnx_writer import opsets

    def fail(*_: object) -> None:
        raise RuntimeError("no adapter\nfor this")

    monkeypatch.setattr(fusion, "fuse_linear", to_newer_operator)
    monkeypatch.setattr(opsets.onnx.version_converter, "convert_version", fail)
    fused = fuse(one_conv())
    assert not fused.report.fusions and fused.to_proto() == one_conv()
    assert fused.report.unfused == (
        Unfused(
            "deformable",
            ("Conv:y",),
            "needs opset 19, and the model cannot be raised to that from 17 (no adapter); export "
            "it with opset 19 or newer",
        ),
    )
