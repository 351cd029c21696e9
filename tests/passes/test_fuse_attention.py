"""Spelled-out attention becomes one node, and nothing else does."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.passes.rewriting import check, evaluate, operators, rewritten
from tests.small_models import assert_same, expected, floats, model, node
from vkconv.ir import Array
from vkconv.passes.fuse_attention import fuse_attention

PASS = fuse_attention
X = {"q": [2, 3, 5, 8], "k": [2, 3, 7, 8], "v": [2, 3, 7, 4], "m": [2, 1, 5, 7]}
Y: dict[str, Any] = {"y": None}
NUMBERS: dict[str, Array] = {
    "half": np.array(0.5, np.float32),
    "root": np.array([0.6], np.float32),
    "eight": np.array(8, np.float32),
    "factors": floats(8),
    "large": np.ones((1, 1, 1, 1, 1), np.float32),
}
TURN = node("Transpose", "k", "t", perm=[0, 1, 3, 2])
PRODUCT = node("MatMul", "q t", "s")
SOFT = node("Softmax", "s", "p", axis=-1)
LAST = node("MatMul", "p v", "y")
PLAIN = ["Transpose", "MatMul", "Softmax", "MatMul"]


def run(
    nodes: list[Any],
    wanted: list[str],
    outputs: dict[str, Any] | None = None,
    opset: int = 13,
    x: Any = X,
) -> Any:
    return check(model(nodes, x, outputs or Y, NUMBERS, opset=opset), wanted, PASS)


def test_plain() -> None:
    graph = run([TURN, PRODUCT, SOFT, LAST], ["Attention+"])
    fused = graph.nodes[0]
    assert fused.attributes == {"scale": 1.0, "keys_are_rows": 1}
    assert set(fused.fused) == {TURN.name, PRODUCT.name, SOFT.name}


@pytest.mark.parametrize(
    "nodes,scale",
    [
        ([TURN, node("MatMul", "q t", "a"), node("Mul", "a half", "s")], 0.5),
        ([TURN, node("MatMul", "q t", "a"), node("Div", "a eight", "s")], 1 / 8),
        ([TURN, node("Mul", "half q", "a"), node("MatMul", "a t", "s")], 0.5),
        (
            [
                TURN,
                node("Mul", "t root", "b"),
                node("Mul", "q root", "a"),
                node("MatMul", "a b", "s"),
            ],
            0.36,
        ),
        (
            [node("Mul", "k half", "b"), node("Transpose", "b", "t", perm=[0, 1, 3, 2]), PRODUCT],
            0.5,
        ),
    ],
)
def test_scales(nodes: list[Any], scale: float) -> None:
    graph = run([*nodes, SOFT, LAST], ["Attention+"])
    assert graph.nodes[0].attributes["scale"] == pytest.approx(scale)


@pytest.mark.parametrize("operands", ["a m", "m a"])
def test_mask(operands: str) -> None:
    nodes = [TURN, node("MatMul", "q t", "a"), node("Add", operands, "s"), SOFT, LAST]
    graph = run(nodes, ["Attention+"])
    assert graph.nodes[0].inputs[3] is graph.inputs[3]


def test_keys_that_come_transposed() -> None:
    graph = run([PRODUCT, SOFT, LAST], ["Attention+"], x=X | {"t": [2, 3, 8, 7]})
    assert graph.nodes[0].attributes["keys_are_rows"] == 0
    turned = node("Transpose", "k", "t", perm=[0, 1, 2, 3])
    run([turned, PRODUCT, SOFT, LAST], ["Transpose", "Attention+"], x=X | {"k": [2, 3, 8, 7]})


def test_three_dimensions_and_old_softmax() -> None:
    x = {"q": [6, 5, 8], "k": [6, 7, 8], "v": [6, 7, 4], "m": [6, 5, 7]}
    nodes = [
        node("Transpose", "k", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "a"),
        node("Add", "a m", "s"),
    ]
    run([*nodes, node("Softmax", "s", "p", axis=2), LAST], ["Attention+"], opset=11, x=x)


def test_softmax_over_other_axes() -> None:
    run([TURN, PRODUCT, node("Softmax", "s", "p", axis=2), LAST], PLAIN)
    run([TURN, PRODUCT, node("Softmax", "s", "p", axis=2), LAST], PLAIN, opset=11)
    run([TURN, PRODUCT, node("Softmax", "s", "p"), LAST], PLAIN, opset=11)


def test_scales_that_are_no_numbers() -> None:
    run([TURN, node("Mul", "q factors", "a"), node("MatMul", "a t", "s"), SOFT, LAST],
        ["Mul", "Attention+"], x=X)  # fmt: skip
    nodes = [TURN, node("MatMul", "q t", "a"), node("Mul", "a m", "s"), SOFT, LAST]
    run(nodes, ["Transpose", "MatMul", "Mul", "Softmax", "MatMul"])
    divided = [TURN, node("MatMul", "q t", "a"), node("Div", "half a", "s"), SOFT, LAST]
    assert "Attention+" not in operators(rewritten(model(divided, X, Y, NUMBERS), PASS))


@pytest.mark.parametrize("value", ["s", "p"])
def test_values_that_others_read(value: str) -> None:
    run(
        [TURN, PRODUCT, SOFT, LAST, node("Neg", value, "z")],
        [*PLAIN, "Neg"],
        {"y": None, "z": None},
    )
    run([TURN, PRODUCT, SOFT, LAST], PLAIN, {"y": None, value: None})


def test_transposed_keys_that_others_read() -> None:
    """They are there already: the node reads them as they are."""
    run([TURN, PRODUCT, SOFT, LAST, node("Neg", "t", "z")], ["Transpose", "Attention+", "Neg"],
        {"y": None, "z": None})  # fmt: skip


def test_products_that_broadcast() -> None:
    run([TURN, PRODUCT, SOFT, LAST], PLAIN, x=X | {"k": [1, 3, 7, 8]})
    run([TURN, PRODUCT, SOFT, LAST], PLAIN, x=X | {"v": [7, 4]})


def test_mask_that_adds_a_dimension() -> None:
    nodes = [TURN, node("MatMul", "q t", "a"), node("Add", "a large", "s"), SOFT, LAST]
    run(nodes, ["Transpose", "MatMul", "Add", "Softmax", "MatMul"])


def test_rows_of_minus_infinity_stay_nan() -> None:
    nodes = [TURN, node("MatMul", "q t", "a"), node("Add", "a m", "s"), SOFT, LAST]
    proto = model(nodes, X, Y)
    graph = rewritten(proto, PASS)
    assert operators(graph) == ["Attention+"]
    feeds = {name: floats(*shape) for name, shape in X.items()}
    feeds["m"][0, 0, 2] = -np.inf
    (actual,), (wanted,) = evaluate(graph, feeds), expected(proto, feeds)
    assert np.isnan(wanted[0, :, 2]).all() and np.isnan(wanted).sum() == 12
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 14, 17])
def test_torch_export(opset: int) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.attention(x, x, x, need_weights=opset < 14)[0]

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Net().eval(), (torch.randn(2, 5, 16),), stream, opset_version=opset, dynamo=False
        )
    proto = onnx.load_from_string(stream.getvalue())
    graph = rewritten(proto, PASS)
    assert operators(graph).count("Attention+") == 1 and "Softmax" not in operators(graph)
    feeds = {graph.inputs[0].name: floats(2, 5, 16)}
    assert_same(evaluate(graph, feeds), expected(proto, feeds))
