"""Scales and shifts per channel move into weights, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array
from vkconv.passes.fuse_linear_branches import fuse_linear_branches

X = {"x": [2, 4, 5, 3]}
ROWS = {"a": [3, 6]}
Y: dict[str, Any] = {"y": None}
NUMBERS: dict[str, Array] = {
    "w": floats(5, 4, 3, 3, scale=0.2),
    "b": floats(5, seed=1),
    "g": floats(5, 2, 1, 1),
    "half": np.array(0.5, np.float32),
    "zero": np.array(0, np.float32),
    "scale": floats(5, 1, 1, seed=2),
    "shift": floats(1, 5, 1, 1, seed=3),
    "columns": floats(3, seed=4),
    "pixels": floats(3, 1, seed=5),
    "m": floats(6, 5, seed=6),
    "mt": floats(5, 6, seed=7),
    "row": floats(1, 5, seed=8),
    "five": floats(5, seed=9),
    "three": floats(3, 1, seed=10),
    "deep": floats(1, 1, 1, 5, seed=11),
    "variance": floats(5, seed=12) ** 2 + 0.1,
    "large": np.full(5, 3e38, np.float32),
    "thousand": np.array(1e3, np.float32),
}
CONV = node("Conv", "x w b", "c")
BARE = node("Conv", "x w", "c")


def run(nodes: list[Any], wanted: list[str], x: Any = X, outputs: Any = None) -> Any:
    return check(model(nodes, x, outputs or Y, NUMBERS), wanted, fuse_linear_branches)


@pytest.mark.parametrize("conv", [CONV, BARE])
@pytest.mark.parametrize(
    "last",
    [
        node("Mul", "c scale", "y"),
        node("Mul", "half c", "y"),
        node("Add", "c shift", "y"),
        node("Sub", "c shift", "y"),
        node("Sub", "shift c", "y"),
        node("Div", "c scale", "y"),
    ],
)
def test_behind_a_convolution(conv: Any, last: Any) -> None:
    graph = run([conv, last], ["Conv"])
    assert graph.nodes[0].fused == [last.name]


def test_chain() -> None:
    nodes = [BARE, node("Mul", "c scale", "d"), node("Add", "d shift", "e"),
             node("Mul", "e half", "f"),
             node("BatchNormalization", "f five b five variance", "y")]  # fmt: skip
    graph = run(nodes, ["Conv"])
    assert len(graph.nodes[0].fused) == 4


def test_what_is_no_affine_function_of_channels() -> None:
    run([CONV, node("Mul", "c columns", "y")], ["Conv", "Mul"])
    run([CONV, node("Add", "c pixels", "y")], ["Conv", "Add"])
    run([CONV, node("Div", "half c", "y")], ["Conv", "Div"])
    run([CONV, node("Mul", "c c", "y")], ["Conv", "Mul"])
    run([CONV, node("Mul", "c q", "y")], ["Conv", "Mul"], X | {"q": [5, 1, 1]})


def test_weights_beyond_float32_stay_apart() -> None:
    for nodes in (
        [node("Conv", "x w large", "c"), node("Mul", "c thousand", "y")],
        [CONV, node("Div", "c zero", "y")],
    ):
        graph = rewritten(model(nodes, X, Y, NUMBERS), fuse_linear_branches)
        assert operators(graph) == ["Conv", nodes[1].op_type]


def test_values_that_others_read() -> None:
    nodes = [CONV, node("Mul", "c scale", "y"), node("Neg", "c", "z")]
    run(nodes, ["Conv", "Mul", "Neg"], outputs={"y": None, "z": None})
    run(nodes[:2], ["Conv", "Mul"], outputs={"y": None, "c": None})


def test_behind_gemm() -> None:
    transposed = node("Gemm", "a mt five", "c", transB=1)
    others = [node("Gemm", f"a m {bias}", "c") for bias in ("five", "row", "half", "-")]
    for gemm in (transposed, *others):
        norm = node("BatchNormalization", "c five b five variance", "y")
        run([gemm, norm], ["Gemm"], ROWS)
        run([gemm, node("Mul", "c row", "d"), node("Add", "d five", "y")], ["Gemm"], ROWS)


def test_gemm_with_factors_or_a_bias_per_row() -> None:
    last = node("Mul", "c row", "y")
    graph = run([node("Gemm", "a m five", "c", alpha=0.5, beta=2.0), last], ["Gemm"], ROWS)
    assert not graph.nodes[0].attributes
    run([node("Gemm", "a m three", "c"), last], ["Gemm", "Mul"], ROWS)


def test_behind_a_matrix_product() -> None:
    product = node("MatMul", "a m", "c")
    run([product, node("Mul", "c row", "y")], ["MatMul"], ROWS)
    run([product, node("Add", "c five", "y")], ["Gemm"], ROWS)
    run([product, node("BatchNormalization", "c five b five variance", "y")], ["Gemm"], ROWS)


def test_behind_a_batch_of_matrix_products() -> None:
    """There is no place for a bias, and BatchNormalization's channels are other ones."""
    product, batch = node("MatMul", "a m", "c"), {"a": [2, 5, 6]}
    run([product, node("Mul", "c five", "y")], ["MatMul"], batch)
    run([product, node("Add", "c five", "y")], ["MatMul", "Add"], batch)
    run([product, node("Mul", "c deep", "y")], ["MatMul", "Mul"], batch)
    norm = node("BatchNormalization", "c five b five variance", "y")
    run([product, norm], ["MatMul", "BatchNormalization"], batch)
