"""Traced sampling that is no deformable convolution stays, with the reason."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.passes.rewriting import operators, rewritten
from tests.passes.traced_layers import Layer, exported, refused
from tests.small_models import floats, model, node
from vkconv.onnx_reader import read_model
from vkconv.ops.registry import REGISTRY
from vkconv.passes import infer_and_fold, traced_sampling
from vkconv.passes.recognise_deform_conv import KIND
from vkconv.passes.recognise_deform_conv import recognise_deform_conv as PASS

#: the module; the package holds the function under its name
MODULE = sys.modules[PASS.__module__]


def test_without_a_border_of_zeros_it_stays(tmp_path: Path) -> None:
    proto = exported(tmp_path, Layer(padding=0))
    graph = rewritten(proto, PASS)
    assert "DeformConv" not in operators(graph)
    [left] = refused(graph)
    assert left.kind == KIND
    assert "no border of zeros" in left.reason or "something else" in left.reason


def another_border(proto: onnx.ModelProto) -> None:
    [pad] = [n for n in proto.graph.node if n.op_type == "Pad"]
    value = helper.make_tensor("one", 1, [], [1.0])
    proto.graph.initializer.append(value)
    del pad.input[2:]
    pad.input.append("one")


def another_sign(proto: onnx.ModelProto) -> None:
    """One factor of a weight becomes 1 + d instead of 1 - d."""
    subtraction = [n for n in proto.graph.node if n.op_type == "Sub"][-1]
    subtraction.op_type = "Add"


def tighter_clamp(proto: onnx.ModelProto) -> None:
    clip = [n for n in proto.graph.node if n.op_type == "Clip"][-1]
    proto.graph.initializer.append(helper.make_tensor("three", 1, [], [3.0]))
    clip.input[2] = "three"


def rounded(proto: onnx.ModelProto) -> None:
    """Positions are rounded down in an extra place: the nearest pixel to the left above."""
    [floor] = [n for n in proto.graph.node if n.op_type == "Floor"]
    for item in proto.graph.node:
        if item is not floor:
            for i, name in enumerate(item.input):
                if name == floor.input[0]:
                    item.input[i] = floor.output[0]


def another_order_of_taps(proto: onnx.ModelProto) -> None:
    """The lines of a patch in reverse."""
    concat = [n for n in proto.graph.node if n.op_type == "Concat" and len(n.input) == 3][-1]
    reverse = list(concat.input)[::-1]
    del concat.input[:]
    concat.input.extend(reverse)


@pytest.mark.parametrize(
    "change", [another_border, another_sign, tighter_clamp, rounded, another_order_of_taps]
)
def test_what_computes_something_else_stays(
    traced_layer: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]
) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(traced_layer)
    change(proto)
    graph = rewritten(proto, PASS)
    assert "DeformConv" not in operators(graph)
    [left] = refused(graph)
    assert "something else than DeformConv (NMSE" in left.reason
    PASS(graph)
    assert refused(graph) == [left], "it is tried once, and noted once"


def test_positions_that_leave_the_map_are_another_operator(traced_layer: onnx.ModelProto) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(traced_layer)
    for clip in [n for n in proto.graph.node if n.op_type == "Clip"]:
        del clip.input[1:]
    [left] = refused(rewritten(proto, PASS))
    assert "something else" in left.reason or "cannot be run" in left.reason


def test_what_cannot_be_run_is_a_reason(
    traced_layer: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *_: Any) -> None:
        raise IndexError("index 99 is out of bounds")

    graph = read_model(traced_layer)
    infer_and_fold(graph)
    monkeypatch.setattr(REGISTRY["", "GatherElements"], "reference", fail)
    PASS(graph)
    [left] = refused(graph)
    assert left.reason == "it cannot be run: IndexError: index 99 is out of bounds"


def test_large_maps_are_left_alone(
    traced_layer: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "MOST_ELEMENTS", 100)
    graph = rewritten(traced_layer, PASS)
    assert "too large to compare" in refused(graph)[0].reason
    assert "GatherElements" in operators(graph)


def test_other_models_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: Any) -> None:
        raise AssertionError("looked at")

    monkeypatch.setattr(MODULE, "find_sampling", find)
    monkeypatch.setattr(MODULE, "_samples", find)
    weights = {"w": floats(4, 3, 2, 2), "i": np.array([1, 0, 2])}
    tiling = node("Conv", "a w", "y", strides=[2, 2])
    inputs, out = {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}
    rewritten(model([node("Gather", "x i", "a", axis=1), tiling], inputs, out, weights), PASS)
    rewritten(model([node("Floor", "x", "a"), tiling], inputs, out, weights), PASS)
    # both are there, but not for what the convolution reads
    apart = [tiling, node("Floor", "x", "f"), node("Gather", "f i", "g", axis=1)]
    relu, outputs = node("Relu", "x", "a"), {**out, "g": [1, 3, 8, 8]}
    rewritten(model([relu, *apart], {"x": [None, 3, 8, 8]}, outputs, weights), PASS)
    overlapping = node("Conv", "b w", "y", strides=[1, 1])
    steps = [node("Floor", "x", "a"), node("Gather", "a i", "b", axis=1), overlapping]
    rewritten(model(steps, inputs, {"y": [1, 4, 7, 7]}, weights), PASS)


def test_rounding_and_gathering_for_another_purpose_is_left_in_silence() -> None:
    weights = {"w": floats(4, 3, 2, 2), "i": np.array([1, 0, 2])}
    steps = [
        node("Floor", "x", "a"),
        node("Relu", "a", "r"),
        node("Gather", "r i", "b", axis=1),
        node("Conv", "b w", "y", strides=[2, 2]),
    ]
    graph = rewritten(model(steps, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, weights), PASS)
    assert not graph.unfused and not graph.fusions
    assert operators(graph) == ["Floor", "Relu", "Gather", "Conv"]


def test_a_walk_over_a_long_chain_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_sampling, "_MOST_NODES", 10)
    steps = [node("Neg", "x", "v0"), node("Floor", "v0", "f"), node("Gather", "f i", "g", axis=1)]
    steps += [node("Neg", "g" if i == 0 else f"n{i - 1}", f"n{i}") for i in range(40)]
    steps.append(node("Conv", "n39 w", "y", strides=[2, 2]))
    weights = {"w": floats(4, 3, 2, 2), "i": np.array([1, 0, 2])}
    graph = rewritten(model(steps, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, weights), PASS)
    assert not graph.unfused and len(graph.nodes) == 44
