"""Offsets and factors that one convolution wrote are read from its result."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.harness import Case
from tests.ops.test_deform_conv import oracle
from tests.passes.rewriting import evaluate, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array, Graph
from vkconv.passes.fuse_deform_operands import fuse_deform_operands

SHAPES = {"x": [2, 4, 6, 5], "o": [2, 30, 6, 5]}
Y = {"y": None}
CONSTANTS: dict[str, Array] = {
    "w": floats(3, 4, 3, 3),
    "b": floats(3),
    "parts": np.array([18, 9, 3]),
    "shifted": np.array([1, 18, 9, 2]),
    "thirds": np.array([9, 9, 9, 3]),
    **{f"n{i}": np.array([i]) for i in (0, 1, 2, 18, 19, 27, 28, 30)},
    "back": np.array([-1]),
}
DEFORM = node("DeformConv", "x w f b m", "y", pads=[1, 1, 1, 1])


def run(nodes: list[Any], wanted: list[str], outputs: dict[str, Any] | None = None) -> Graph:
    """The rewritten graph computes with numpy what the plain one does."""
    proto = model(nodes, SHAPES, outputs or Y, CONSTANTS, opset=19)
    graph = rewritten(proto, fuse_deform_operands)
    assert operators(graph) == wanted
    random = np.random.default_rng(3)
    feeds = {n: np.asarray(random.standard_normal(s), np.float32) for n, s in SHAPES.items()}
    plain = rewritten(proto, lambda _: None)
    for found, expected in zip(evaluate(graph.copy(), feeds), evaluate(plain, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
    return graph


def attributes(graph: Graph) -> tuple[int, int]:
    conv = graph.nodes[-1]
    return conv.attributes["offset_channel"], conv.attributes["mask_channel"]


SPLIT = node("Split", "o parts", "f c rest", axis=1)
SIGMOID = node("Sigmoid", "c", "m")


def test_split_and_sigmoid() -> None:
    graph = run([SPLIT, SIGMOID, DEFORM], ["DeformConv+"])
    assert attributes(graph) == (0, 18)
    assert graph.nodes[0].attributes["mask_activation"] == 4
    assert graph.nodes[0].fused == ["Split:f", "Sigmoid:m"]
    assert graph.nodes[0].inputs[2] is graph.nodes[0].inputs[4] is graph.inputs[1]


def test_an_odd_channel_and_no_activation() -> None:
    split = node("Split", "o shifted", "first f m rest", axis=-3)
    assert attributes(run([split, DEFORM], ["DeformConv+"])) == (1, 19)


def test_thirds_joined_again() -> None:
    """o1, o2, mask = chunk(out, 3); offset = cat((o1, o2))"""
    nodes = [node("Split", "o thirds", "f1 f2 c rest", axis=1), SIGMOID,
             node("Concat", "f1 f2", "f", axis=1), DEFORM]  # fmt: skip
    graph = run(nodes, ["DeformConv+"])
    assert attributes(graph) == (0, 18)
    assert graph.nodes[0].fused == ["Split:f1", "Concat:f", "Sigmoid:m"]


def test_slices_of_slices() -> None:
    cut = [node("Slice", "o n2 n30 n1", "z"), node("Slice", "z n1 n19 n1", "f")]
    nodes = [*cut, node("Slice", "z n19 n28 n1 n1", "c"), node("HardSigmoid", "c", "m"), DEFORM]
    assert attributes(run(nodes, ["DeformConv+"])) == (3, 21)


def test_only_the_offsets() -> None:
    nodes = [node("Slice", "o n0 n18 n1", "f"), node("Slice", "o n18 n27 n1", "c"),
             node("Softmax", "c", "m", axis=1), DEFORM]  # fmt: skip
    graph = run(nodes, ["Slice", "Softmax", "DeformConv+"])
    assert "mask_channel" not in graph.nodes[-1].attributes


def test_only_the_mask() -> None:
    nodes = [node("Slice", "o n0 n18 n1", "e"), node("Softmax", "e", "f", axis=1),
             node("Slice", "o n18 n27 n1", "c"), SIGMOID, DEFORM]  # fmt: skip
    graph = run(nodes, ["Slice", "Softmax", "DeformConv+"])
    assert "offset_channel" not in graph.nodes[-1].attributes


PLAIN = node("DeformConv", "x w f b", "y", pads=[1, 1, 1, 1])


def test_pieces_in_another_order_are_left() -> None:
    nodes = [node("Split", "o thirds", "f1 f2 c rest", axis=1),
             node("Concat", "f2 f1", "f", axis=1), PLAIN]  # fmt: skip
    run(nodes, ["Split", "Concat", "DeformConv"])


def test_channels_backwards_are_left() -> None:
    run([node("Slice", "o n18 n0 n1 back", "f"), PLAIN], ["Slice", "DeformConv"])


def test_only_channels_are_followed() -> None:
    nodes = [node("Split", "big rows", "o _", axis=2), SPLIT, PLAIN]
    shapes = {"x": SHAPES["x"], "big": [2, 30, 8, 5]}
    constants = CONSTANTS | {"rows": np.array([6, 2])}
    graph = rewritten(model(nodes, shapes, Y, constants, opset=19), fuse_deform_operands)
    assert operators(graph) == ["Split", "DeformConv+"]
    assert graph.nodes[1].inputs[2] is graph.nodes[0].outputs[0]


def test_channels_that_only_a_run_knows_are_left() -> None:
    shapes = SHAPES | {"sizes": ("int64", [3])}
    proto = model([SPLIT, PLAIN], shapes, Y, CONSTANTS, opset=19)
    proto.graph.node[0].input[1] = "sizes"
    graph = rewritten(proto, fuse_deform_operands)
    assert operators(graph) == ["Split", "DeformConv"]


def test_parts_that_something_else_reads_stay() -> None:
    nodes = [SPLIT, SIGMOID, DEFORM, node("Neg", "f", "z"), node("Neg", "m", "v")]
    graph = run(nodes, ["Split", "Sigmoid", "DeformConv+", "Neg", "Neg"],
                {"y": None, "z": None, "v": None})  # fmt: skip
    assert graph.nodes[2].attributes["offset_channel"] == 0
    assert "mask_channel" not in graph.nodes[2].attributes
    assert graph.nodes[2].fused == []


def test_two_convolutions_that_share_their_offsets() -> None:
    nodes = [SPLIT, SIGMOID, DEFORM, node("DeformConv", "x w f b m", "z", pads=[1, 1, 1, 1])]
    graph = run(nodes, ["Split", "Sigmoid", "DeformConv+", "DeformConv+"], {"y": None, "z": None})
    assert [n.fused for n in graph.nodes[2:]] == [[], []]


def test_running_it_twice_changes_nothing() -> None:
    proto = model([SPLIT, SIGMOID, DEFORM], SHAPES, Y, CONSTANTS, opset=19)
    graph = rewritten(proto, fuse_deform_operands, fuse_deform_operands)
    assert operators(graph) == ["DeformConv+"] and attributes(graph) == (0, 18)


def test_the_fused_reference_against_torch() -> None:
    graph = rewritten(
        model([SPLIT, SIGMOID, DEFORM], SHAPES, Y, CONSTANTS, opset=19), fuse_deform_operands
    )
    x, o = floats(2, 4, 6, 5), floats(2, 30, 6, 5, seed=1)
    mask = (1 / (1 + np.exp(-o[:, 18:27].astype(np.float64)))).astype(np.float32)
    inputs = (x, CONSTANTS["w"], o[:, :18], CONSTANTS["b"], mask)
    case = Case("DeformConv", inputs, {"pads": [1] * 4, "group": 1, "offset_group": 1})
    (found,) = evaluate(graph, {"x": x, "o": o})
    np.testing.assert_allclose(found, oracle(case)[0], rtol=1e-4, atol=1e-4)
