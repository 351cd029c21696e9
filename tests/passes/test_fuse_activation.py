"""Activations behind convolutions, products and normalisations move in, where these have no other
reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import check, evaluate, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ops.activation_codes import Activation
from vkconv.passes.fuse_activation import fuse_activation

PASS = fuse_activation
X = {"x": [1, 3, 5, 4]}
Y = {"y": None}
WEIGHTS = {"w": floats(6, 3, 3, 3), "b": floats(6)}
CONV = node("Conv", "x w b", "c")


@pytest.mark.parametrize(
    ("op_type", "attributes", "code"),
    [
        ("Relu", {}, Activation.RELU),
        ("LeakyRelu", {"alpha": 0.2}, Activation.LEAKY_RELU),
        ("Sigmoid", {}, Activation.SIGMOID),
        ("Tanh", {}, Activation.TANH),
        ("HardSwish", {}, Activation.HARD_SWISH),
        ("HardSigmoid", {"alpha": 0.3}, Activation.HARD_SIGMOID),
        ("Elu", {"alpha": 0.5}, Activation.ELU),
        ("Softplus", {}, Activation.SOFTPLUS),
    ],
)
def test_conv_takes_it_over(op_type: str, attributes: dict[str, Any], code: Activation) -> None:
    nodes = [CONV, node(op_type, "c", "y", **attributes)]
    graph = check(model(nodes, X, Y, WEIGHTS), ["Conv+"], PASS)
    assert graph.nodes[0].attributes["activation"] == int(code)
    assert graph.nodes[0].fused == [f"{op_type}:y"]


def test_conv_transpose_takes_it_over() -> None:
    nodes = [node("ConvTranspose", "x w", "c"), node("Relu", "c", "y")]
    check(model(nodes, X, Y, {"w": floats(3, 6, 3, 3)}), ["ConvTranspose+"], PASS)


@pytest.mark.parametrize("bounds", ["low high", "low", "- high"])
def test_clip_with_constant_bounds(bounds: str) -> None:
    constants = WEIGHTS | {"low": np.float32(-0.5), "high": np.float32(1)}
    check(model([CONV, node("Clip", f"c {bounds}", "y")], X, Y, constants), ["Conv+"], PASS)


def test_clip_of_opset_9() -> None:
    nodes = [CONV, node("Clip", "c", "y", min=0.0, max=6.0)]
    check(model(nodes, X, Y, WEIGHTS, opset=9), ["Conv+"], PASS)


def test_clip_with_computed_bounds_stays() -> None:
    nodes = [CONV, node("Clip", "c low", "y")]
    check(model(nodes, X | {"low": []}, Y, WEIGHTS), ["Conv", "Clip"], PASS)


def test_only_the_first_of_two() -> None:
    nodes = [CONV, node("Relu", "c", "r"), node("Sigmoid", "r", "y")]
    check(model(nodes, X, Y, WEIGHTS), ["Conv+", "Sigmoid"], PASS)


def test_convolution_that_is_read_elsewhere_or_an_output() -> None:
    relu = node("Relu", "c", "y")
    elsewhere = model([CONV, relu, node("Neg", "c", "z")], X, {"y": None, "z": None}, WEIGHTS)
    check(elsewhere, ["Conv", "Relu", "Neg"], PASS)
    check(model([CONV, relu], X, {"y": None, "c": None}, WEIGHTS), ["Conv", "Relu"], PASS)


def test_prelu_and_products_stay() -> None:
    nodes = [CONV, node("PRelu", "c slope", "y")]
    constants = WEIGHTS | {"slope": floats(6, 1, 1)}
    check(model(nodes, X, Y, constants), ["Conv", "PRelu"], PASS)
    nodes = [CONV, node("Sigmoid", "z", "s"), node("Mul", "c s", "y")]
    proto = model(nodes, X | {"z": [1, 6, 3, 2]}, Y, WEIGHTS)
    check(proto, ["Conv", "Sigmoid", "Mul"], PASS)


def test_convolutions_without_kernels_too() -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    proto = model(nodes, {"x": [1, 2, 3, 3, 3]}, Y, {"w": floats(2, 2, 2, 2, 2)})
    check(proto, ["Conv+"], PASS)


def test_running_it_twice_changes_nothing() -> None:
    nodes = [CONV, node("Relu", "c", "y")]
    check(model(nodes, X, Y, WEIGHTS), ["Conv+"], PASS, PASS)


def test_deform_conv_takes_it_over() -> None:
    nodes = [node("DeformConv", "x w o b", "c"), node("Relu", "c", "y")]
    proto = model(nodes, X | {"o": [1, 18, 3, 2]}, Y, WEIGHTS, opset=19)
    graph = rewritten(proto, PASS)
    assert operators(graph) == ["DeformConv+"]
    assert graph.nodes[0].attributes["activation"] == Activation.RELU
    x, o = floats(1, 3, 5, 4), floats(1, 18, 3, 2, seed=1)
    before = rewritten(proto, lambda _: None)
    np.testing.assert_array_equal(
        evaluate(graph, {"x": x, "o": o})[0], evaluate(before, {"x": x, "o": o})[0]
    )


NORMALISED = {"s": floats(6), "b": floats(6)}


def test_normalisations_take_it_over() -> None:
    maps = {"x": [2, 6, 5, 4]}
    nodes = [node("InstanceNormalization", "x s b", "c"), node("Sigmoid", "c", "y")]
    check(model(nodes, maps, Y, NORMALISED), ["InstanceNormalization+"], PASS)
    for opset, count in ((18, 3), (21, 6)):
        constants = {"s": floats(count), "b": floats(count)}
        nodes = [node("GroupNormalization", "x s b", "c", num_groups=3), node("Relu", "c", "y")]
        proto = model(nodes, maps, Y, constants, opset=opset)
        graph = check(proto, ["GroupNormalization+"], PASS, PASS)
        assert graph.nodes[0].attributes["affine_by_group"] == int(opset == 18)


def test_products_take_it_over() -> None:
    rows = {"x": [5, 3]}
    constants = {"w": floats(3, 6), "b": floats(6)}
    nodes = [node("MatMul", "x w", "c"), node("Tanh", "c", "y")]
    check(model(nodes, rows, Y, {"w": constants["w"]}), ["MatMul+"], PASS)
    nodes = [node("Gemm", "x w b", "c", alpha=0.5), node("Relu", "c", "y")]
    check(model(nodes, rows, Y, constants), ["Gemm+"], PASS)


def test_products_of_integers_stay() -> None:
    nodes = [node("MatMul", "x w", "c"), node("Abs", "c", "y")]
    proto = model(
        nodes, {"x": ("int32", [5, 3])}, {"y": ("int32", None)}, {"w": np.ones((3, 6), np.int32)}
    )
    check(proto, ["MatMul", "Abs"], PASS)


def test_products_that_are_read_elsewhere_stay() -> None:
    nodes = [node("MatMul", "x w", "c"), node("Relu", "c", "y"), node("Neg", "c", "z")]
    proto = model(nodes, {"x": [5, 3]}, {"y": None, "z": None}, {"w": floats(3, 6)})
    check(proto, ["MatMul", "Relu", "Neg"], PASS)
