"""Factors of channels move into the 1x1 convolution that alone reads the product."""

from __future__ import annotations

from typing import Any

import pytest

from tests.passes.rewriting import check
from tests.small_models import floats, model, node
from vkconv.ir import Graph
from vkconv.passes.fuse_activation import fuse_activation
from vkconv.passes.fuse_channel_scale import fuse_channel_scale
from vkconv.passes.fuse_residual import fuse_residual

X = {"x": [2, 6, 5, 3], "s": [2, 6, 1, 1]}
Y = {"y": None}
W = {"w": floats(6, 6, 1, 1), "b": floats(6), "k": floats(6, 6, 3, 3), "d": floats(6, 1, 1, 1)}
PASSES = (fuse_activation, fuse_residual, fuse_channel_scale)
MUL = node("Mul", "x s", "p")
CONV = node("Conv", "p w b", "y")


def run(
    nodes: list[Any],
    wanted: list[str],
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
) -> Graph:
    return check(model(nodes, inputs or X, outputs or Y, W), wanted, *PASSES)


@pytest.mark.parametrize("operands", ["x s", "s x"])
def test_the_product_is_gone(operands: str) -> None:
    graph = run([node("Mul", operands, "p"), CONV], ["Conv+"])
    (conv,) = graph.nodes
    assert conv.inputs[0] is graph.inputs[0] and conv.inputs[4] is graph.inputs[1]
    assert conv.inputs[3] is None and conv.fused == ["Mul:p"]


def test_squeeze_and_excitation() -> None:
    nodes = [node("GlobalAveragePool", "x", "g"), node("Conv", "g w b", "f"),
             node("Sigmoid", "f", "s"), MUL, node("Conv", "p w", "c"), node("Add", "c x", "a"),
             node("Relu", "a", "y")]  # fmt: skip
    graph = run(nodes, ["GlobalAveragePool", "Conv+", "Conv+"], {"x": [2, 6, 5, 3]})
    last = graph.nodes[2]
    assert last.inputs[2] is None and last.inputs[3] is graph.inputs[0]
    assert last.inputs[4] is graph.nodes[1].outputs[0]
    assert last.fused == ["Add:a", "Relu:y", "Mul:p"]


@pytest.mark.parametrize("spatial", [[7], [3, 4, 2]])
def test_one_and_three_axes(spatial: list[int]) -> None:
    ones = [1] * len(spatial)
    shapes = {"x": [2, 5, *spatial], "s": [2, 5, *ones]}
    constants = {"v": floats(3, 5, *ones)}
    check(model([MUL, node("Conv", "p v", "y")], shapes, Y, constants), ["Conv+"], *PASSES)


def test_strides_and_padding() -> None:
    conv = node("Conv", "p w b", "y", strides=[2, 2], pads=[1, 0, 0, 1])
    run([MUL, conv], ["Conv+"])


def test_computed_weights() -> None:
    run([MUL, node("Conv", "p v", "y")], ["Conv+"], X | {"v": [4, 6, 1, 1]})


@pytest.mark.parametrize(
    "conv",
    [
        node("Conv", "p k b", "y"),
        node("Conv", "p d", "y", group=6),
        node("Conv", "z p", "y"),
        node("ConvTranspose", "p w", "y"),
    ],
    ids=["3x3", "depthwise", "weights", "transposed"],
)
def test_other_readers_are_left(conv: Any) -> None:
    shapes: dict[str, Any] = {"z": [1, 6, 8, 8]}
    if conv.input[0] == "z":  # the product is the convolution's weights
        shapes |= {"x": [3, 6, 1, 3], "s": [3, 6, 1, 1]}
    run([MUL, conv], ["Mul", conv.op_type], X | shapes)


@pytest.mark.parametrize("shape", [[1, 6, 1, 1], [2, 1, 1, 1], [2, 6, 5, 1], [2, 6, 5, 3], [], [3]])
def test_other_factors_are_left(shape: list[int]) -> None:
    run([MUL, CONV], ["Mul", "Conv"], X | {"s": shape})


def test_maps_of_one_pixel_are_left() -> None:
    run([MUL, CONV], ["Mul", "Conv"], {"x": [2, 6, 1, 1], "s": [2, 6, 1, 1]})


def test_constants_are_left() -> None:
    constants = W | {"s": floats(2, 6, 1, 1)}
    check(model([MUL, CONV], {"x": X["x"]}, Y, constants), ["Mul", "Conv"], *PASSES)


def test_integers_are_left() -> None:
    nodes = [MUL, node("Cast", "p", "f", to=1), node("Conv", "f w b", "y")]
    run(nodes, ["Mul", "Cast", "Conv"], {n: ("int32", s) for n, s in X.items()})


def test_a_product_that_is_read_elsewhere_or_an_output() -> None:
    nodes = [MUL, CONV, node("Neg", "p", "z")]
    run(nodes, ["Mul", "Conv", "Neg"], outputs={"y": None, "z": None})
    run(nodes[:2], ["Mul", "Conv"], outputs={"y": None, "p": None})


def test_only_one_of_two_products() -> None:
    nodes = [node("Mul", "x t", "q"), node("Mul", "q s", "p"), CONV]
    run(nodes, ["Mul", "Conv+"], X | {"t": [2, 6, 1, 1]})


def test_running_it_twice_changes_nothing() -> None:
    proto = model([node("Mul", "x t", "q"), node("Mul", "q s", "p"), CONV],
                  X | {"t": [2, 6, 1, 1]}, Y, W)  # fmt: skip
    check(proto, ["Mul", "Conv+"], *PASSES, *PASSES)


def test_a_residual_behind_a_scaled_convolution() -> None:
    nodes = [MUL, node("Conv", "p w b", "c"), node("Add", "c x", "y")]
    graph = check(model(nodes, X, Y, W), ["Conv+"], fuse_channel_scale, fuse_residual)
    assert graph.nodes[0].inputs[3:] == [graph.inputs[0], graph.inputs[1]]
