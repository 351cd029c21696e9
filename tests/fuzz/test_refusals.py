"""What fuzzing found and is refused now: each in one line that names the node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.growth import assert_grows_linearly
from tests.small_models import floats, info, model, node
from vkconv import InferenceSession, InvalidModelError, UnsupportedModelError


def loop(trips: Any) -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body", [info("turn", ("int64", [])), info("going", ("bool", [])), info("v", [3])],
        [info("on", ("bool", [])), info("w", [3])],
    )  # fmt: skip
    nodes = [node("Loop", "trips - x", "y", body=body)]
    return model(nodes, {"x": [3]}, {"y": None}, {"trips": np.array(trips, np.int64)})


def resized(length: int) -> onnx.ModelProto:
    sizes = np.array([1, 2, length, 3], np.int64)
    nodes = [node("Resize", "x - - s", "y", mode="linear")]
    return model(nodes, {"x": [1, 2, 4, 6]}, {"y": None}, {"s": sizes})


def parts(length: int) -> onnx.ModelProto:
    nodes = [
        node("SplitToSequence", "x", "s", axis=0),
        node("ConcatFromSequence", "s", "y", axis=0),
    ]
    return model(nodes, {"x": [length, 2]}, {"y": None})


def quantized(zero: np.ndarray) -> onnx.ModelProto:
    one, byte = np.array(0.5, np.float32), np.array(3, np.uint8)
    weights = np.arange(12, dtype=np.uint8).reshape(4, 3)
    nodes = [node("QLinearMatMul", "x s z w s z s t", "y")]
    constants = {"s": one, "z": byte, "w": weights, "t": zero}
    return model(nodes, {"x": ("uint8", [2, 4])}, {"y": ("uint8", None)}, constants)


def sparse(dims: list[int]) -> onnx.ModelProto:
    proto = model([node("Add", "x k", "y")], {"x": [3]}, {"y": None}, {"k": floats(3)})
    del proto.graph.initializer[:]
    kept = proto.graph.sparse_initializer.add(dims=dims)
    kept.values.CopyFrom(helper.make_tensor("k", TensorProto.FLOAT, [0], []))
    kept.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [0], []))
    return proto


def scattered(rows: int) -> onnx.ModelProto:
    nodes = [node("ScatterElements", "x i u", "y", axis=1)]
    types = {"x": [rows, 5], "u": [4, 1]}
    return model(nodes, types, {"y": None}, {"i": np.array([[1], [3], [-5], [1]])})


def converted() -> onnx.ModelProto:
    nodes = [node("ToLinear", "x", "y", domain="vkconv")]
    return model(nodes, {"x": [1, 4, 3, 3]}, {"y": None}, domains={"vkconv": 1})


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: loop([]), InvalidModelError, r"Loop:y.*trip count has shape \(0,\)"),
        (lambda: loop([2, 2]), InvalidModelError, r"Loop:y.*trip count has shape \(2,\)"),
        (lambda: resized(1 << 23), InvalidModelError, "Resize:y.*axis 2 are resized to 8388608"),
        (lambda: resized(1 << 40), InvalidModelError, "Resize:y.*smaller size"),
        (lambda: parts(1 << 40), InvalidModelError, "a sequence of 1099511627776 tensors"),
        (lambda: quantized(np.array(3.0, np.float32)), InvalidModelError, "'t' is float32"),
        (lambda: sparse([0, 1 << 62]), InvalidModelError, "sparse tensor 'k'"),
        (lambda: scattered(1 << 31), UnsupportedModelError, "maxStorageBufferRange"),
        (converted, UnsupportedModelError, "ToLinear:y.*leave it out of the model"),
    ],
)
def test_refused_in_one_line(
    make: Callable[[], onnx.ModelProto], error: type[Exception], says: str
) -> None:
    began = time.process_time()
    with pytest.raises(error, match=says) as held:
        InferenceSession(make())
    assert "\n" not in str(held.value) and time.process_time() - began < 2


def test_a_size_of_the_run_is_refused_too() -> None:
    nodes = [node("Resize", "x - - s", "y")]
    types = {"x": [1, 3, 5, 4], "s": ("int64", [4])}
    with InferenceSession(model(nodes, types, {"y": None})) as session:
        x = floats(1, 3, 5, 4)
        for sizes in ((1, 0, 9, (1 << 63) - 1), (1, 3, 9, 1 << 40)):
            with pytest.raises(InvalidModelError, match="Resize:y"):
                session.run(None, {"x": x, "s": np.array(sizes, np.int64)})
        (empty,) = session.run(None, {"x": x, "s": np.array([1, 0, 9, 1 << 30], np.int64)})
        assert empty.shape == (1, 0, 9, 1 << 30)
        (y,) = session.run(None, {"x": x, "s": np.array([1, 3, 10, 8], np.int64)})
        np.testing.assert_array_equal(y, x.repeat(2, 2).repeat(2, 3))


def test_what_is_near_them_still_runs() -> None:
    x = floats(3)
    for trips in (2, [2]):
        with InferenceSession(loop(trips)) as session:
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))

    def split(count: int) -> None:
        rows = floats(count, 2)
        with InferenceSession(parts(count)) as session:
            np.testing.assert_array_equal(session.run(None, {"x": rows})[0], rows)

    assert_grows_linearly(split, 1600)  # 1,500 took 36 s, by the square of their number
