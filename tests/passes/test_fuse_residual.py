"""Sums move into a convolution, when the other operand is there before it and of one shape."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.rewriting import check, evaluate, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Graph
from vkconv.passes.fuse_activation import fuse_activation
from vkconv.passes.fuse_residual import fuse_residual

X = {"x": [2, 4, 5, 3]}
Y = {"y": None}
W = {"w": floats(4, 4, 3, 3, scale=0.2), "v": floats(4, 4, 1, 1, scale=0.5)}
PADS = [1, 1, 1, 1]
PASSES = (fuse_activation, fuse_residual)


def conv(x: str, y: str) -> object:
    return node("Conv", f"{x} w", y, pads=PADS)


def run(nodes: list[object], wanted: list[str], outputs: dict[str, None] | None = None) -> Graph:
    proto = model(nodes, X, outputs or Y, W)
    return check(proto, wanted, *PASSES)


@pytest.mark.parametrize("operands", ["c x", "x c"])
def test_sum_without_activation(operands: str) -> None:
    graph = run([conv("x", "c"), node("Add", operands, "y")], ["Conv+"])
    assert graph.nodes[0].attributes["residual"] == "first"
    assert graph.nodes[0].inputs[3] is graph.inputs[0]


def test_activation_behind_the_sum() -> None:
    graph = run([conv("x", "c"), node("Add", "c x", "s"), node("Relu", "s", "y")], ["Conv+"])
    assert graph.nodes[0].attributes["residual"] == "first"
    assert graph.nodes[0].fused == ["Add:s", "Relu:y"]


def test_activation_before_the_sum() -> None:
    nodes = [conv("x", "c"), node("Sigmoid", "c", "r"), node("Add", "x r", "y")]
    graph = run(nodes, ["Conv+"])
    assert graph.nodes[0].attributes["residual"] == "last"


def test_activations_before_and_behind() -> None:
    nodes = [conv("x", "c"), node("Relu", "c", "r"), node("Add", "x r", "s"),
             node("Sigmoid", "s", "y")]  # fmt: skip
    run(nodes, ["Conv+", "Sigmoid"])


def test_sums_of_sums() -> None:
    nodes = [conv("x", "c"), node("Add", "c x", "s"), node("Add", "s x", "y")]
    run(nodes, ["Conv+", "Add"])


def test_the_later_of_two_convolutions_takes_it() -> None:
    for first, second in (("a", "b"), ("b", "a")):
        nodes = [conv("x", first), node("Conv", "x v", second), node("Add", "a b", "y")]
        graph = run(nodes, ["Conv", "Conv+"])
        assert graph.nodes[1].inputs[3] is graph.nodes[0].outputs[0]


def test_chain_of_blocks() -> None:
    nodes = []
    before = "x"
    for i in range(3):
        nodes += [
            conv(before, f"c{i}"),
            node("Relu", f"c{i}", f"r{i}"),
            conv(f"r{i}", f"d{i}"),
            node("Add", f"d{i} {before}", f"s{i}"),
            node("Relu", f"s{i}", f"y{i}"),
        ]
        before = f"y{i}"
    run(nodes, ["Conv+"] * 6, {"y2": None})


def test_the_other_operand_comes_too_late() -> None:
    nodes = [conv("x", "c"), node("Relu", "x", "r"), node("Add", "c r", "y")]
    run(nodes, ["Conv", "Relu", "Add"])


def test_operand_that_depends_on_the_convolution() -> None:
    nodes = [conv("x", "c"), node("Sigmoid", "c", "s"), node("Add", "c s", "y")]
    run(nodes, ["Conv", "Sigmoid", "Add"])
    nodes = [conv("x", "c"), node("Conv", "c v", "d"), node("Add", "c d", "y")]
    run(nodes, ["Conv", "Conv+"])


def test_convolution_and_its_own_output() -> None:
    run([conv("x", "c"), node("Add", "c c", "y")], ["Conv", "Add"])


def test_convolution_that_is_read_elsewhere_or_an_output() -> None:
    nodes = [conv("x", "c"), node("Add", "c x", "y"), node("Neg", "c", "z")]
    run(nodes, ["Conv", "Add", "Neg"], {"y": None, "z": None})
    run(nodes[:2], ["Conv", "Add"], {"y": None, "c": None})


@pytest.mark.parametrize("shape", [[1, 4, 5, 3], [2, 4, 1, 1], [2, 1, 5, 3], [5, 3], []])
def test_other_shapes_are_left(shape: list[int]) -> None:
    proto = model([conv("x", "c"), node("Add", "c r", "y")], X | {"r": shape}, Y, W)
    check(proto, ["Conv", "Add"], *PASSES)


def test_residual_that_broadcasts_the_convolution() -> None:
    proto = model([conv("x", "c"), node("Add", "c r", "y")], X | {"r": [3, 2, 4, 5, 3]}, Y, W)
    check(proto, ["Conv", "Add"], *PASSES)


def test_constants_and_other_convolutions_are_left() -> None:
    proto = model([conv("x", "c"), node("Add", "c r", "y")], X, Y, W | {"r": floats(2, 4, 5, 3)})
    check(proto, ["Conv", "Add"], *PASSES)
    nodes = [node("ConvTranspose", "x v", "c"), node("Add", "c x", "y")]
    run(nodes, ["ConvTranspose", "Add"])
    three = model([node("Conv", "x w", "c"), node("Add", "c x", "y")], {"x": [1, 2, 3, 3, 3]}, Y,
                  {"w": floats(2, 2, 1, 1, 1)})  # fmt: skip
    check(three, ["Conv", "Add"], *PASSES)


def test_running_it_twice_changes_nothing() -> None:
    nodes = [conv("x", "c"), node("Add", "c x", "s"), node("Relu", "s", "y")]
    check(model(nodes, X, Y, W), ["Conv+"], *PASSES, *PASSES)


@pytest.mark.parametrize(("operands", "bias"), [("c x", "b"), ("x c", "-"), ("x c", "")])
def test_deformable_convolution(operands: str, bias: str) -> None:
    """Whatever optional inputs it has, the residual is its sixth."""
    deform = node("DeformConv", f"x w o {bias}", "c", pads=PADS)
    nodes = [deform, node("Add", operands, "s"), node("Relu", "s", "y")]
    proto = model(nodes, X | {"o": [2, 18, 5, 3]}, Y, W | {"b": floats(4)}, opset=19)
    graph = rewritten(proto, *PASSES)
    assert operators(graph) == ["DeformConv+"]
    (fused,) = graph.nodes
    assert fused.inputs[5] is graph.inputs[0] and fused.inputs[4] is None
    assert (fused.inputs[3] is not None) == (bias == "b")
    feeds = {"x": floats(2, 4, 5, 3), "o": floats(2, 18, 5, 3, seed=1)}
    (found,) = evaluate(graph, feeds)
    (plain,) = evaluate(rewritten(proto, lambda _: None), feeds)
    np.testing.assert_array_equal(found, plain)


def test_a_mask_stays_where_it_is() -> None:
    nodes = [node("DeformConv", "x w o - m", "c", pads=PADS), node("Add", "c x", "y")]
    shapes = X | {"o": [2, 18, 5, 3], "m": [2, 9, 5, 3]}
    graph = rewritten(model(nodes, shapes, Y, W, opset=19), *PASSES)
    assert operators(graph) == ["DeformConv+"]
    names = [None if v is None else v.name for v in graph.nodes[0].inputs]
    assert names == ["x", "w", "o", None, "m", "x"]
