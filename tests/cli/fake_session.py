"""A detector whose boxes are known, and a session that needs no GPU to run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from vkconv.errors import DeviceError, InvalidModelError
from vkconv.profiler import ProfileRow

# cx, cy, w, h, score of class 0, score of class 1; in pixels of the 64 x 64 input.
ROWS = [
    (32.0, 32.0, 20.0, 10.0, 0.9, 0.0),
    (33.0, 32.0, 20.0, 10.0, 0.7, 0.0),
    (12.0, 40.0, 8.0, 8.0, 0.0, 0.6),
    (50.0, 20.0, 8.0, 8.0, 0.1, 0.0),
]


def save_model(
    path: Path,
    *,
    input_shape: Sequence[int | str] = (1, 3, 64, 64),
    input_type: int = TensorProto.FLOAT,
    output: np.ndarray | None = None,
    output_shape: Sequence[int | str] | None = None,
    metadata: dict[str, str] | None = None,
    extra_input: bool = False,
) -> Path:
    """A model that answers with ``output`` whatever the picture: output + 0 * mean(input)."""
    if output is None:
        output = np.zeros((1, 6, 84), np.float32)
        output[0, :, : len(ROWS)] = np.array(ROWS, np.float32).T
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    inputs = [helper.make_tensor_value_info("images", input_type, input_shape)]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    nodes = [
        helper.make_node("Cast", ["images"], ["float_images"], "cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float_images"], ["mean"], "mean", keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"], "mul"),
        helper.make_node("Add", ["answer", "nothing"], ["boxes"], "add"),
    ]
    graph = helper.make_graph(
        nodes,
        "known_boxes",
        inputs,
        [
            helper.make_tensor_value_info(
                "boxes", TensorProto.FLOAT, output.shape if output_shape is None else output_shape
            )
        ],
        [zero, numpy_helper.from_array(output, "answer")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="tests", ir_version=8
    )
    if metadata is None:
        metadata = {"names": "{0: 'cat', 1: 'dog'}"}
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def save_chooser(path: Path) -> Path:
    """A model of the form of RT-DETR's and D-FINE's exports, which returns final boxes of the sizes
    that it is told: labels, boxes, scores. It answers with ROWS, whatever the picture."""
    rows = np.array(ROWS)
    sides = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2), axis=1)
    constants = {
        "zero": np.zeros(1, np.float32),
        "fractions": (sides / 64).astype(np.float32)[np.newaxis],
        "certain": rows[np.newaxis, :, 4:].max(axis=2).astype(np.float32),
        "best": rows[np.newaxis, :, 4:].argmax(axis=2),
    }
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], "mean", keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"], "mul"),
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sizes"], "concat", axis=1),
        helper.make_node("Mul", ["fractions", "sizes"], ["boxes"], "scale"),
        helper.make_node("Add", ["certain", "nothing"], ["scores"], "add"),
        helper.make_node("Identity", ["best"], ["labels"], "labels"),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ("N", 3, 64, 64)),
        helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ("N", 2)),
    ]
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.INT64, (1, 4)),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, (1, 4, 4)),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 4)),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "chooser", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


class FakeMemory:
    plans = 1

    def __str__(self) -> str:
        return "memory: none"


class FakeSession:
    """The session's public face over onnxruntime."""

    created: ClassVar[list[FakeSession]] = []

    def __init__(self, model, device="auto", precision="fp32", strict=False, images=None) -> None:
        if device not in ("auto", "0", "fake"):
            raise DeviceError(f"no device '{device}'; 'vkconv devices' lists them")
        if not Path(model).exists():
            raise InvalidModelError(f"no model file '{model}'; check the path")
        try:
            self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception:
            raise InvalidModelError(f"'{model}' is not an ONNX model") from None
        self.device = SimpleNamespace(
            index=0,
            name="Fake GPU",
            kind="cpu",
            driver="fake 1.0",
            api_version="1.1.0",
            memory_bytes=3 << 30,
            features=("fp16", "subgroup"),
        )
        self.placement = [
            SimpleNamespace(node=name, op_type=name.title(), where="gpu", detail="elementwise")
            for name in ("cast", "mean", "mul", "add")
        ]
        self.closed = False
        self.image_inputs: dict[str, object] = {}
        FakeSession.created.append(self)

    def get_inputs(self):
        return self._session.get_inputs()

    def get_outputs(self):
        return self._session.get_outputs()

    def get_modelmeta(self):
        return self._session.get_modelmeta()

    def run(self, names, feeds):
        return self._session.run(names, feeds)

    def profile(self, feeds):
        self._session.run(None, feeds)
        rows = [
            ProfileRow(f"node{i}", "gemm", 1e-3, 0.05, 10**7, 10**6, "ssbo 8x1x1", of_ceiling=0.25)
            for i in range(20)
        ]
        return SimpleNamespace(
            rows=lambda: rows,
            ceilings=None,
            write_chrome_trace=lambda path: Path(path).write_text('{"traceEvents": []}'),
        )

    def describe_plan(self) -> str:
        return "step 0: elementwise\nstep 1: \x1b[31mreduce"

    memory = FakeMemory()

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
