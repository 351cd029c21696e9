"""Spelled-out activations become one operator, in every spelling that torch's exporters write."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array
from vkconv.ops.activation_codes import Activation
from vkconv.passes.recognise_activations import recognise_activations

PASS = recognise_activations
X = {"x": [2, 3, 4]}
Y = {"y": None}
NUMBERS: dict[str, Array] = {
    "half": np.array(0.5, np.float32), "one": np.array([1], np.float32),
    "two": np.array(2, np.float32), "three": np.array(3, np.float32),
    "six": np.array(6, np.float32), "zero": np.array(0, np.float32),
    "sixth": np.array(1 / 6, np.float32), "root2": np.array(2**0.5, np.float32),
    "inverse_root2": np.array(0.5**0.5, np.float32),
    "cube": np.array(0.044715, np.float32), "slope": np.array((2 / np.pi) ** 0.5, np.float32),
}  # fmt: skip


def run(
    nodes: Sequence[onnx.NodeProto], wanted: Sequence[str], extra: dict[str, Array] | None = None
) -> None:
    check(model(nodes, X, Y, NUMBERS | (extra or {}), opset=20), list(wanted), PASS)


# --- sigmoid gates ------------------------------------------------------------------------------


@pytest.mark.parametrize("operands", ["x g", "g x"])
def test_swish(operands: str) -> None:
    run([node("Sigmoid", "x", "g"), node("Mul", operands, "y")], ["Swish"])


def test_gate_of_another_value() -> None:
    run([node("Neg", "x", "n"), node("Sigmoid", "n", "g"), node("Mul", "x g", "y")],
        ["Neg", "Sigmoid", "Mul"])  # fmt: skip
    run([node("Sigmoid", "x", "g"), node("Mul", "g g", "y")], ["Sigmoid", "Mul"])
    run([node("Sigmoid", "x", "g"), node("Add", "x g", "y")], ["Sigmoid", "Add"])


def test_gate_with_another_reader_stays_for_it() -> None:
    nodes = [node("Sigmoid", "x", "g"), node("Mul", "x g", "y"), node("Neg", "g", "z")]
    proto = model(nodes, X, {"y": None, "z": None})
    graph = check(proto, ["Sigmoid", "Swish", "Neg"], PASS)
    assert [n.name for n in graph.nodes][1] == "Mul:y"


def test_hard_swish_of_hard_sigmoid() -> None:
    for slope, offset, wanted in (
        (1 / 6, 0.5, ["HardSwish"]),
        (0.2, 0.5, None),
        (1 / 6, 0.4, None),
    ):
        gate = node("HardSigmoid", "x", "g", alpha=slope, beta=offset)
        run([gate, node("Mul", "g x", "y")], wanted or ["HardSigmoid", "Mul"])


SHIFTED = [node("Add", "x three", "s"), node("Clip", "s zero six", "c")]


@pytest.mark.parametrize(
    "product",
    [
        [node("Mul", "x c", "p"), node("Div", "p six", "y")],
        [node("Mul", "c x", "p"), node("Mul", "sixth p", "y")],
        [node("Div", "c six", "p"), node("Mul", "x p", "y")],
        [node("Mul", "x sixth", "p"), node("Mul", "p c", "y")],
    ],
)
def test_hard_swish_of_clip(product: list[onnx.NodeProto]) -> None:
    run([*SHIFTED, *product], ["HardSwish"])


def test_hard_swish_of_opset_9() -> None:
    nodes = [SHIFTED[0], node("Clip", "s", "c", min=0.0, max=6.0), node("Div", "c six", "p"),
             node("Mul", "x p", "y")]  # fmt: skip
    check(model(nodes, X, Y, NUMBERS, opset=9), ["HardSwish"], PASS)


def test_what_is_nearly_a_hard_swish() -> None:
    tail = [node("Mul", "x c", "p"), node("Div", "p six", "y")]
    run([node("Add", "x two", "s"), SHIFTED[1], *tail], ["Add", "Clip", "Mul", "Div"])
    run([SHIFTED[0], node("Clip", "s zero three", "c"), *tail], ["Add", "Clip", "Mul", "Div"])
    run([*SHIFTED, tail[0], node("Div", "p three", "y")], ["Add", "Clip", "Mul", "Div"])
    other = [node("Neg", "x", "n"), node("Mul", "n c", "p"), tail[1]]
    run([*SHIFTED, *other], ["Add", "Clip", "Neg", "Mul", "Div"])
    square = [node("Mul", "c c", "p"), tail[1]]
    run([*SHIFTED, *square], ["Add", "Clip", "Mul", "Div"])


def test_mish() -> None:
    nodes = [node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "x t", "y")]
    run(nodes, ["Mish"])
    run([*nodes[:2], node("Mul", "s t", "y")], ["Softplus", "Tanh", "Mul"])


# --- Gelu ---------------------------------------------------------------------------------------

ERF = [node("Div", "x root2", "d"), node("Erf", "d", "e"), node("Add", "e one", "g")]


@pytest.mark.parametrize(
    "product",
    [
        [node("Mul", "x g", "p"), node("Mul", "p half", "y")],
        [node("Mul", "x half", "p"), node("Mul", "g p", "y")],
        [node("Mul", "half g", "p"), node("Mul", "p x", "y")],
        [node("Mul", "x g", "p"), node("Div", "p two", "y")],
        [node("Div", "g two", "p"), node("Mul", "x p", "y")],
    ],
)
def test_gelu(product: list[onnx.NodeProto]) -> None:
    run([*ERF, *product], ["Gelu"])
    multiplied = [node("Mul", "inverse_root2 x", "d"), ERF[1], node("Add", "one e", "g")]
    run([*multiplied, *product], ["Gelu"])


def test_gelu_of_a_product() -> None:
    before = [node("Mul", "x w", "a")]
    erf = [node("Div", "a root2", "d"), *ERF[1:]]
    nodes = [*before, *erf, node("Mul", "a g", "p"), node("Mul", "p half", "y")]
    run(nodes, ["Mul", "Gelu"], {"w": floats(4)})


@pytest.mark.parametrize(
    "tail",
    [
        [node("Mul", "x half", "p"), node("Div", "p g", "y")],
        [node("Mul", "x g", "p"), node("Mul", "p two", "y")],
        [node("Mul", "x g", "p"), node("Div", "half p", "y")],
        [node("Neg", "x", "n"), node("Mul", "n g", "p"), node("Mul", "p half", "y")],
        [node("Mul", "g g", "p"), node("Mul", "p half", "y")],
    ],
)
def test_what_is_nearly_a_gelu(tail: list[onnx.NodeProto]) -> None:
    nodes = [*ERF, *tail]
    run(nodes, [n.op_type for n in nodes])


def test_tanh_gelu() -> None:
    nodes = [
        node("Mul", "x x", "xx"), node("Mul", "x xx", "xxx"), node("Mul", "xxx cube", "c"),
        node("Add", "c x", "s"), node("Mul", "s slope", "a"), node("Tanh", "a", "t"),
        node("Add", "t one", "g"), node("Mul", "x half", "h"), node("Mul", "g h", "y"),
    ]  # fmt: skip
    run(nodes, ["Gelu"])
    nodes[0:2] = [node("Pow", "x three", "xxx")]
    run(nodes, ["Gelu"])
    nodes[0] = node("Pow", "x two", "xxx")
    run(nodes, [n.op_type for n in nodes])


def test_a_constant_that_adds_dimensions() -> None:
    nodes = [*ERF, node("Mul", "x g", "p"), node("Mul", "p wide", "y")]
    wide = {"wide": np.full((1, 1, 1, 1), 0.5, np.float32)}
    proto = model(nodes, X, Y, NUMBERS | wide, opset=20)
    assert operators(rewritten(proto, PASS)) == ["Div", "Erf", "Add", "Mul", "Mul"]


# --- torch's spellings --------------------------------------------------------------------------

ACTIVATIONS = {
    "SiLU": Activation.SILU,
    "Hardswish": Activation.HARD_SWISH,
    "Mish": Activation.MISH,
    "GELU": Activation.GELU,
    "GELU_tanh": Activation.GELU_TANH,
    "ReLU6": Activation.CLIP,
    "LeakyReLU": Activation.LEAKY_RELU,
}


@pytest.fixture(scope="module")
def exported() -> dict[tuple[bool, int], bytes]:
    """One model a dialect: a convolution with each activation, side by side."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = torch.nn.ModuleList(torch.nn.Conv2d(2, 3, 1) for _ in ACTIVATIONS)
            self.activations = torch.nn.ModuleList(
                torch.nn.GELU(approximate="tanh") if n == "GELU_tanh" else getattr(torch.nn, n)()
                for n in ACTIVATIONS
            )

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(a(c(x)) for c, a in zip(self.convs, self.activations, strict=True))

    net, found = Net().eval(), {}
    logging.disable(logging.ERROR)
    for dynamo, opset in ((False, 11), (False, 13), (False, 17), (True, 18), (True, 20)):
        file = io.BytesIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net, (torch.zeros(1, 2, 3, 3),), file, opset_version=opset, dynamo=dynamo
            )
        found[dynamo, opset] = file.getvalue()
    logging.disable(logging.NOTSET)
    return found


@pytest.mark.parametrize(
    ("dynamo", "opset"), [(False, 11), (False, 13), (False, 17), (True, 18), (True, 20)]
)
def test_exporters(exported: dict[tuple[bool, int], bytes], dynamo: bool, opset: int) -> None:
    proto = onnx.load_from_string(exported[dynamo, opset])
    graph = check(proto, ["Conv+"] * len(ACTIVATIONS))
    codes = [n.attributes["activation"] for n in graph.nodes]
    assert codes == [int(code) for code in ACTIVATIONS.values()]
