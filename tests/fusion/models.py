"""A block of branches, and fusions of it that are wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.small_models import floats, model, node
from tests.test_onnx_writer import NORM, scale_and_shift
from vkconv.ir import Fusion, Graph, Value


def rep_block() -> onnx.ModelProto:
    """3x3 + 1x1 + identity, each with its normalisation, open in batch, height and width."""
    nodes = [
        node("Conv", "images w3", "c3", pads=[1, 1, 1, 1]),
        node(NORM, "c3 gamma beta mean variance", "n3"),
        node("Conv", "images w1", "c1"),
        node(NORM, "c1 gamma beta mean variance", "n1"),
        node(NORM, "images gamma beta mean variance", "n0"),
        node("Add", "n3 n1", "s"),
        node("Add", "s n0", "t"),
        node("Relu", "t", "y"),
    ]
    constants = {"w3": floats(4, 4, 3, 3), "w1": floats(4, 4, 1, 1), **scale_and_shift(4)}
    return model(
        nodes, {"images": ["n", 4, "h", "w"]}, {"y": ["n", 4, "h", "w"]}, constants, opset=15
    )


def breaking(change: Callable[[Graph], None]) -> Callable[[Graph], None]:
    """A fusion that is wrong."""

    def run(graph: Graph) -> None:
        change(graph)
        graph.nodes[0].fused.append("something")
        graph.fusions.append(Fusion("wrong", ("something",), graph.nodes[0].name, ""))

    return run


def one_percent_more(graph: Graph) -> None:
    weight = graph.nodes[0].inputs[1]
    assert weight is not None and weight.array is not None
    made = Value("more", weight.type, weight.array * np.float32(1.01))
    graph.nodes[0].inputs[1] = made
