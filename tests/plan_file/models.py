"""Models whose plans hold everything a plan can, and what a session makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.small_models import floats, model, node
from vkconv import InferenceSession, compile_model
from vkconv.ir import Array


def convolutions() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Device steps alone, two inputs, an output that is folded and one that is an input's."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("LeakyRelu", "c", "r", alpha=0.1),
        node("Concat", "r side", "j", axis=1), node("MaxPool", "j", "p", kernel_shape=[2, 2]),
        node("Conv", "p v", "y", strides=[2, 2]), node("Add", "k k", "folded"),
    ]  # fmt: skip
    constants = {"w": floats(8, 3, 3, 3), "b": floats(8), "v": floats(5, 12, 3, 3), "k": floats(3)}
    inputs = {"x": [1, 3, 12, 14], "side": [1, 4, 12, 14]}
    proto = model(nodes, inputs, {"y": None, "folded": None}, constants)
    onnx.helper.set_model_props(proto, {"vkconv.head": "yolov7", "naïve": "ключ"})
    proto.producer_name = "by hand"
    return proto, {"x": floats(1, 3, 12, 14), "side": floats(1, 4, 12, 14, seed=1)}


def host_steps() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Float64 on the host between convolutions, with attributes and a constant; integers, text."""
    nodes = [
        node("Conv", "x w", "a"), node("Cast", "a", "d", to=11), node("Mul", "d half", "m"),
        node("ReduceSum", "m axes", "s", keepdims=1), node("Cast", "s", "f", to=1),
        node("Conv", "f v", "y"), node("Identity", "words", "same"),
    ]  # fmt: skip
    constants = {
        "w": floats(4, 4, 1, 1), "v": floats(2, 4, 1, 1),
        "half": np.array(0.5), "axes": np.array([3]),
    }  # fmt: skip
    inputs = {"x": [1, 4, 5, 5], "words": ("string", [2])}
    outputs = {"y": None, "same": ("string", [2])}
    feeds = {"x": floats(1, 4, 5, 5), "words": np.array(["eins", "два"], object)}
    return model(nodes, inputs, outputs, constants), feeds


def later_stages() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Shapes that depend on data, twice, one of them computed by an operator with room to spare."""
    nodes = [
        node("Relu", "x", "r"), node("NonZero", "r", "i"), node("Cast", "i", "g", to=1),
        node("MatMul", "m g", "h"), node("Reshape", "h s", "y"),
    ]  # fmt: skip
    proto = model(
        nodes,
        {"x": [3, 4], "s": ("int64", [2])},
        {"y": None, "i": ("int64", None)},
        {"m": floats(4, 2)},
    )
    x = floats(3, 4)
    return proto, {"x": x, "s": np.array([-1, 2])}


def driven_loop() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A loop whose trip count is an input: the host drives its body."""
    body = helper.make_graph(
        [node("Add", "state step", "next"), node("Identity", "going", "on")],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [3]),
        ],
    )
    nodes = [node("Loop", "n - x", "y", body=body), node("Mul", "y y", "z")]
    proto = model(nodes, {"n": ("int64", []), "x": [3]}, {"z": None}, {"step": floats(3, seed=5)})
    return proto, {"n": np.array(4), "x": floats(3)}


def unwanted_output() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A kernel that writes what nobody wants into a dummy: 8-bit maxima are taken with indices."""
    nodes = [node("MaxPool", "x", "y", kernel_shape=[2, 2])]
    proto = model(nodes, {"x": ("uint8", [1, 1, 5, 6])}, {"y": ("uint8", None)})
    return proto, {"x": np.arange(30, dtype=np.uint8).reshape(1, 1, 5, 6)}


ALL = {
    "unwanted output": unwanted_output,
    "convolutions": convolutions,
    "host steps": host_steps,
    "later stages": later_stages,
    "driven loop": driven_loop,
}


def results(source: Any, feeds: Mapping[str, Array], device: str = "auto") -> list[Array]:
    """What a session of the model, or of its plan, gives; two runs must agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with InferenceSession(source, device=device) as session:
            first, second = session.run(None, feeds), session.run(None, feeds)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    return first


def compiled(proto: onnx.ModelProto, path: Path, **options: Any) -> Path:
    compile_model(proto, str(path), **options)
    return path
