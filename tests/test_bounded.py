"""vkconv/bounded.py: outputs whose size depends on data, computed on the device, amid other
nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import vkconv
from tests.harness import IR_VERSION, random
from vkconv.ir import Array


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "bounded",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=IR_VERSION
    )


def _detections() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The boxes and scores that non-maximum suppression selects, as exporters write it."""
    low, size = random(1, 60, 2, low=0, high=8), random(1, 60, 2, low=1, high=4, seed=1)
    feeds = {
        "boxes": np.concatenate([low, low + size], -1),
        "scores": random(1, 3, 60, low=0, high=1),
    }
    constants = {
        "most": np.array([10], np.int64),
        "iou": np.array([0.4], np.float32),
        "score": np.array([0.5], np.float32),
        "column": np.array(2, np.int64),
        "zero": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Sigmoid", ["scores"], ["shares"], name="Sigmoid"),
        helper.make_node(
            "NonMaxSuppression",
            ["boxes", "shares", "most", "iou", "score"],
            ["selected"],
            name="NMS",
        ),
        helper.make_node("Gather", ["selected", "column"], ["box"], axis=1, name="Column"),
        helper.make_node("Squeeze", ["boxes", "zero"], ["plain"], name="Squeeze"),
        helper.make_node("Gather", ["plain", "box"], ["found"], axis=0, name="Boxes"),
        helper.make_node("Transpose", ["shares"], ["turned"], perm=[0, 2, 1], name="Turn"),
        helper.make_node("Shape", ["found"], ["size"], name="Shape"),
    ]
    outputs = ["selected", "found", "size", "turned"]
    return _model(nodes, feeds, outputs, constants), feeds


def _compare(model: onnx.ModelProto, feeds: Mapping[str, Array], found: Sequence[Array]) -> None:
    judge = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for a, e in zip(found, judge.run(None, dict(feeds)), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        assert np.allclose(a, e, rtol=1e-5, atol=1e-6)


def test_detections_stay_on_the_device_whatever_their_number() -> None:
    model, feeds = _detections()
    sizes = set()
    with vkconv.InferenceSession(model, strict=True) as session:
        for shift in (0, -0.5, -0.9, 0):
            shifted = {**feeds, "scores": feeds["scores"] + np.float32(shift)}
            results = session.run(None, shifted)
            _compare(model, shifted, results)
            sizes.add(len(results[1]))
        assert {p.where for p in session.placement} <= {"gpu", "folded"}
        assert next(p for p in session.placement if p.node == "NMS").where == "gpu"
        # nothing selected
        none = {**feeds, "scores": np.full_like(feeds["scores"], -9)}
        results = session.run(None, none)
        assert [r.shape for r in results[:2]] == [(0, 3), (0, 4)]
    assert len(sizes) > 1


def test_the_profile_has_both_stages() -> None:
    model, feeds = _detections()
    with vkconv.InferenceSession(model) as session:
        profile = session.profile(feeds)
    _compare(model, feeds, profile.outputs)
    assert {"NMS", "Boxes"} <= {step.node for step in profile.steps}


def test_the_reference_device_runs_the_node_on_the_host() -> None:
    model, feeds = _detections()
    with vkconv.InferenceSession(model, device="reference") as session:
        _compare(model, feeds, session.run(None, feeds))
        assert next(p for p in session.placement if p.node == "NMS").where == "host"


def test_one_after_the_other() -> None:
    # x[x > 0] by indices, and of these those that are even
    feeds = {"x": random(7, 9, low=-5, high=6, dtype="int32")}
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["mask"], name="Mask"),
        helper.make_node("NonZero", ["mask"], ["where"], name="First"),
        helper.make_node("Transpose", ["where"], ["tuples"], name="Transpose"),
        helper.make_node("GatherND", ["x", "tuples"], ["positive"], name="Pick"),
        helper.make_node("Mod", ["positive", "two"], ["odd"], name="Mod"),
        helper.make_node("Equal", ["odd", "zero"], ["even"], name="Even"),
        helper.make_node("Compress", ["positive", "even"], ["y"], axis=0, name="Second"),
        helper.make_node("Add", ["y", "two"], ["z"], name="Add"),
    ]
    constants = {"zero": np.array(0, np.int32), "two": np.array(2, np.int32)}
    model = _model(nodes, feeds, ["where", "y", "z"], constants)
    with vkconv.InferenceSession(model) as session:
        for shift in (-9, 3, 0):
            shifted = {"x": feeds["x"] + np.int32(shift)}
            _compare(model, shifted, session.run(None, shifted))
        for node in ("First", "Second"):
            assert next(p for p in session.placement if p.node == node).where == "gpu"


def test_a_result_nobody_reads_is_not_computed() -> None:
    feeds = {"x": random(7, 9)}
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="NonZero"),
        helper.make_node("Neg", ["x"], ["y"], name="Neg"),
    ]
    with vkconv.InferenceSession(_model(nodes, feeds, ["y"])) as session:
        assert np.array_equal(session.run(None, feeds)[0], -feeds["x"])
