"""Small random models: every kind of sharing, layout change and fusion that planning can meet.

``random_model(seed)`` is the same for the same seed. Tensors have few elements and are bounded, so
that a model takes milliseconds and rounding stays comparable.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.random_steps import STEPS, Builder

OPSET = 17


def random_model(seed: int, steps: int = 14) -> onnx.ModelProto:
    b = Builder(np.random.default_rng(seed))
    batch, channels = int(b.random.choice([1, 1, 2, 3])), b.integer(1, 9)
    height, width = b.integer(4, 9), b.integer(4, 9)
    for i in range(b.integer(1, 2)):
        b.inputs[f"x{i}"] = b.tensors[f"x{i}"] = (batch, channels, height, width)
    while len(b.nodes) < steps:
        STEPS[b.integer(0, len(STEPS) - 1)](b)
    read = {name for node in b.nodes for name in node.input}
    outputs = [n for n in b.tensors if n not in read or b.chance(0.08)]
    graph = helper.make_graph(
        b.nodes,
        f"random_{seed}",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in b.inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, b.tensors[n]) for n in outputs],
        b.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
