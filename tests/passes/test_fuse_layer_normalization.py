"""Spelled-out layer normalisation becomes one operator, and nothing else does."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array
from vkconv.passes.fuse_layer_normalization import fuse_layer_normalization

PASS = fuse_layer_normalization
X = {"x": [2, 3, 8]}
Y: dict[str, Any] = {"y": None}
NUMBERS: dict[str, Array] = {
    "two": np.array(2, np.float32),
    "three": np.array(3, np.float32),
    "epsilon": np.array(1e-5, np.float32),
    "epsilons": floats(8) ** 2,
    "scale": floats(8, seed=1),
    "bias": floats(8, seed=2),
    "rows": floats(3, 8, seed=3),
    "wide": floats(1, 1, 1, 8, seed=4),
}
NAMES = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div"]


def mean(x: str, y: str, *axes: int, **more: Any) -> onnx.NodeProto:
    return node("ReduceMean", x, y, axes=list(axes or (-1,)), **more)


CENTER = [mean("x", "m"), node("Sub", "x m", "d")]
SQUARE = [node("Pow", "d two", "s"), mean("s", "v")]
ROOT = [node("Add", "v epsilon", "e"), node("Sqrt", "e", "r")]
DIVIDE = node("Div", "d r", "n")
AFFINE = [node("Mul", "n scale", "t"), node("Add", "t bias", "y")]
WHOLE = [*CENTER, *SQUARE, *ROOT, DIVIDE, *AFFINE]


def run(
    nodes: list[Any], wanted: list[str], outputs: dict[str, Any] | None = None, x: Any = X
) -> Any:
    return check(model(nodes, x, outputs or Y, NUMBERS, opset=13), wanted, PASS)


def test_as_torch_writes_it() -> None:
    graph = run(WHOLE, ["LayerNormalization"])
    fused = graph.nodes[0]
    assert fused.attributes["axis"] == -1
    assert set(fused.fused) == {n.name for n in WHOLE[:-1]}


@pytest.mark.parametrize(
    "nodes",
    [
        [*CENTER, node("Mul", "d d", "s"), mean("s", "v"), *ROOT, DIVIDE, *AFFINE],
        [*CENTER, node("Sub", "x m", "b"), node("Pow", "b two", "s"), mean("s", "v"), *ROOT,
         DIVIDE, *AFFINE],
        [*CENTER, *SQUARE, *ROOT, node("Reciprocal", "r", "i"), node("Mul", "i d", "n"), *AFFINE],
        [*CENTER, *SQUARE, node("Add", "epsilon v", "e"), *ROOT[1:], DIVIDE,
         node("Mul", "scale n", "t"), node("Add", "bias t", "y")],
    ],
)  # fmt: skip
def test_other_spellings(nodes: list[Any]) -> None:
    run(nodes, ["LayerNormalization"])


def test_without_scale_or_bias() -> None:
    last = node("Div", "d r", "y")
    run([*CENTER, *SQUARE, *ROOT, last], ["LayerNormalization"])
    run([*CENTER, *SQUARE, *ROOT, DIVIDE, node("Mul", "n scale", "y")], ["LayerNormalization"])
    run([*CENTER, *SQUARE, *ROOT, DIVIDE, node("Add", "n bias", "y")], ["LayerNormalization"])


def test_several_axes() -> None:
    nodes = [mean("x", "m", 1, 2), CENTER[1], SQUARE[0], mean("s", "v", -1, -2), *ROOT, DIVIDE,
             node("Mul", "n rows", "y")]  # fmt: skip
    graph = run(nodes, ["LayerNormalization"])
    assert graph.nodes[0].attributes["axis"] == -2


def test_axes_that_are_not_the_last() -> None:
    nodes = [mean("x", "m", 1), CENTER[1], SQUARE[0], mean("s", "v", 1), *ROOT, DIVIDE, *AFFINE]
    run(nodes, [*NAMES, "Mul", "Add"])


def test_means_over_different_axes() -> None:
    nodes = [CENTER[0], CENTER[1], SQUARE[0], mean("s", "v", 1, 2), *ROOT, DIVIDE, *AFFINE]
    run(nodes, [*NAMES, "Mul", "Add"])


def test_another_power_or_several_epsilons() -> None:
    cube = [
        *CENTER,
        node("Abs", "d", "a"),
        node("Pow", "a three", "s"),
        SQUARE[1],
        *ROOT,
        DIVIDE,
        *AFFINE,
    ]
    assert "LayerNormalization" not in operators(
        rewritten(model(cube, X, Y, NUMBERS, opset=13), PASS)
    )
    many = [*CENTER, *SQUARE, node("Add", "v epsilons", "e"), *ROOT[1:], DIVIDE, *AFFINE]
    run(many, [*NAMES, "Mul", "Add"])


@pytest.mark.parametrize("value", ["m", "d", "v", "r"])
def test_values_that_others_read(value: str) -> None:
    run([*WHOLE, node("Neg", value, "z")], [*NAMES, "Mul", "Add", "Neg"], {"y": None, "z": None})
    run(WHOLE, [*NAMES, "Mul", "Add"], {"y": None, value: None})


def test_normalised_value_that_others_read() -> None:
    """Scale and bias stay outside then."""
    nodes = [*WHOLE, node("Neg", "n", "z")]
    run(nodes, ["LayerNormalization", "Mul", "Add", "Neg"], {"y": None, "z": None})


def test_scale_that_differs_between_rows_stays_outside() -> None:
    nodes = [*CENTER, *SQUARE, *ROOT, DIVIDE, node("Mul", "n rows", "y")]
    run(nodes, ["LayerNormalization", "Mul"])


def test_scale_that_adds_a_dimension_stays_outside() -> None:
    nodes = [*CENTER, *SQUARE, *ROOT, DIVIDE, node("Mul", "n wide", "y")]
    run(nodes, ["LayerNormalization", "Mul"])


def test_computed_scale_stays_outside() -> None:
    nodes = [*CENTER, *SQUARE, *ROOT, DIVIDE, node("Mul", "n g", "y")]
    run(nodes, ["LayerNormalization", "Mul"], x=X | {"g": [8]})


def test_means_that_drop_dimensions() -> None:
    nodes = [
        mean("x", "m", keepdims=0),
        CENTER[1],
        SQUARE[0],
        mean("s", "v", keepdims=0),
        *ROOT,
        DIVIDE,
        *AFFINE,
    ]
    run(nodes, [*NAMES, "Mul", "Add"], x={"x": [8, 8]})


@pytest.mark.parametrize("opset", [11, 13, 16])
def test_torch_export(opset: int) -> None:
    net = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.LayerNorm((3, 8))).eval()
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.ones(2, 3, 8),), stream, opset_version=opset, dynamo=False)
    check(onnx.load_from_string(stream.getvalue()), ["LayerNormalization"] * 2, PASS)
