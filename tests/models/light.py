"""ONNX's own nine ``light_*`` models: classifiers whose weights are made by ConstantOfShape.

All weights of a tensor being equal, all classes come out equal and mistakes can hide: so a model is
also given weights that differ.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

FOLDER = Path(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")
#: weights repeat after so many: drawing 100 million of a matrix takes seconds. A prime: no two rows
#: are alike
LONGEST_DRAW = 1_000_003
NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def load(name: str) -> onnx.ModelProto:
    return onnx.load(FOLDER / f"light_{name}.onnx")


def expected(name: str) -> NDArray[np.float32]:
    """The output that ONNX ships for ``ramp``."""
    stored = onnx.TensorProto()
    stored.ParseFromString((FOLDER / f"light_{name}_output_0.pb").read_bytes())
    return numpy_helper.to_array(stored)


def ramp(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The input of ONNX's backend tests: 0 to 1 in equal steps."""
    made = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in made:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            feeds[value.name] = (np.arange(count) / count).astype(np.float32).reshape(shape)
    return feeds


def reweighted(model: onnx.ModelProto, seed: int = 9) -> onnx.ModelProto:
    """The model with random weights for each ConstantOfShape, scaled for activations to last.

    What the last Softmax reads becomes an output too: probabilities near 0 and 1 hide what they are
    made of.
    """
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    generator = np.random.default_rng(seed)
    readers = {name: node for node in model.graph.node for name in node.input}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(int(d) for d in shapes[node.input[0]])
            weights = _weights(shape, _role(node.output[0], readers), generator)
            result.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        else:
            result.graph.node.append(node)
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        result.graph.output.add().name = last.input[0]
        result.graph.output[-1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return result


def _role(name: str, readers: dict[str, onnx.NodeProto]) -> str:
    """What the tensor is to the operator that reads it, through an Unsqueeze if need be."""
    node = readers[name]
    if node.op_type == "Unsqueeze":
        return _role(node.output[0], readers)
    position = list(node.input).index(name)
    if node.op_type == "BatchNormalization":
        return ("", "scale", "shift", "shift", "scale")[position]
    return {"Mul": "scale", "Add": "shift"}.get(node.op_type, "sum" if position == 1 else "shift")


def _weights(
    shape: Iterable[int], role: str, generator: np.random.Generator
) -> NDArray[np.float32]:
    shape = tuple(shape)
    if role == "scale":
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if role == "shift":
        return generator.normal(0, 0.1, shape).astype(np.float32)
    deviation = np.float32(np.sqrt(2 / np.prod(shape[1:])))
    drawn = min(int(np.prod(shape)), LONGEST_DRAW)
    return np.resize(generator.standard_normal(drawn, np.float32) * deviation, shape)
