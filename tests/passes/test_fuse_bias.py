"""Vectors added behind matrix products become their bias."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.rewriting import check, rewritten
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.passes.fuse_activation import fuse_activation
from vkconv.passes.fuse_bias import fuse_bias

PASS = fuse_bias
X = {"x": [2, 5, 8]}
Y = {"y": None}
PRODUCT = node("MatMul", "x w", "c")
CONSTANTS = {"w": floats(8, 6), "b": floats(6)}


@pytest.mark.parametrize("operands", ["c b", "b c"])
def test_constant_vector(operands: str) -> None:
    proto = model([PRODUCT, node("Add", operands, "y")], X, Y, CONSTANTS)
    graph = check(proto, ["MatMul+"], PASS)
    assert graph.nodes[0].fused == ["Add:y"]


@pytest.mark.parametrize("shape", [(1,), (), (1, 6), (1, 1, 6), (1, 1, 1)])
def test_other_shapes_of_a_vector(shape: tuple[int, ...]) -> None:
    constants = CONSTANTS | {"b": floats(*shape)}
    check(model([PRODUCT, node("Add", "c b", "y")], X, Y, constants), ["MatMul+"], PASS)


@pytest.mark.parametrize("shape", [(5, 6), (5, 1), (2, 5, 6), (2, 1, 1), (3, 2, 5, 6)])
def test_other_additions_stay(shape: tuple[int, ...]) -> None:
    constants = CONSTANTS | {"b": floats(*shape)}
    check(model([PRODUCT, node("Add", "c b", "y")], X, Y, constants), ["MatMul", "Add"], PASS)


def test_a_vector_that_makes_the_result_larger() -> None:
    """One column plus six numbers is six columns."""
    constants = {"w": floats(8, 1), "b": floats(6)}
    check(model([PRODUCT, node("Add", "c b", "y")], X, Y, constants), ["MatMul", "Add"], PASS)


def test_product_with_a_vector() -> None:
    constants = {"w": floats(8), "b": floats(1)}
    check(model([PRODUCT, node("Add", "c b", "y")], X, Y, constants), ["MatMul+"], PASS)
    constants = {"w": floats(8), "b": floats(5)}  # one number per row, not per column
    check(model([PRODUCT, node("Add", "c b", "y")], X, Y, constants), ["MatMul", "Add"], PASS)


def test_vector_that_the_model_computes() -> None:
    before = [node("Neg", "v", "b"), PRODUCT, node("Add", "c b", "y")]
    constants = {"w": CONSTANTS["w"]}
    check(model(before, X | {"v": [6]}, Y, constants), ["Neg", "MatMul+"], PASS)
    late = [PRODUCT, node("Neg", "v", "b"), node("Add", "c b", "y")]
    check(model(late, X | {"v": [6]}, Y, constants), ["MatMul", "Neg", "Add"], PASS)
    wide = model(before, X | {"v": [1, 6]}, Y, constants)
    check(wide, ["Neg", "MatMul", "Add"], PASS)


def test_product_that_is_read_elsewhere_or_an_output() -> None:
    add = node("Add", "c b", "y")
    elsewhere = model([PRODUCT, add, node("Neg", "c", "z")], X, {"y": None, "z": None}, CONSTANTS)
    check(elsewhere, ["MatMul", "Add", "Neg"], PASS)
    output = model([PRODUCT, add], X, {"y": None, "c": None}, CONSTANTS)
    check(output, ["MatMul", "Add"], PASS)


def test_sum_with_itself_and_integers_stay() -> None:
    check(model([PRODUCT, node("Add", "c c", "y")], X, Y, CONSTANTS), ["MatMul", "Add"], PASS)
    integers = {"w": np.ones((8, 6), np.int32), "b": np.ones(6, np.int32)}
    proto = model(
        [PRODUCT, node("Add", "c b", "y")],
        {"x": ("int32", [2, 5, 8])},
        {"y": ("int32", None)},
        integers,
    )
    check(proto, ["MatMul", "Add"], PASS)


def test_then_the_activation() -> None:
    nodes = [PRODUCT, node("Add", "c b", "d"), node("Relu", "d", "y")]
    graph = check(model(nodes, X, Y, CONSTANTS), ["MatMul+"], PASS, fuse_activation)
    assert graph.nodes[0].fused == ["Add:d", "Relu:y"]


def test_two_layers_on_the_device() -> None:
    """A transformer's feed-forward block: two dispatches."""
    nodes = [
        PRODUCT,
        node("Add", "c b", "d"),
        node("Gelu", "d", "e"),
        node("MatMul", "e w2", "f"),
        node("Add", "b2 f", "y"),
    ]
    constants = CONSTANTS | {"w2": floats(6, 9), "b2": floats(9)}
    proto = model(nodes, X, Y, constants, opset=20)
    assert [n.op_type + "+" * bool(n.domain) for n in rewritten(proto).nodes] == ["MatMul+"] * 2
    x = floats(2, 5, 8, seed=4)
    with InferenceSession(proto) as session:
        assert session.describe_plan().count("matrix_product ") == 2
        assert_same(session.run(None, {"x": x}), expected(proto, {"x": x}))
