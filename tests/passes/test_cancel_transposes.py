"""Transposes that undo each other disappear, also around functions of single elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import check
from tests.small_models import floats, model, node
from vkconv.ir import Array
from vkconv.passes.cancel_transposes import cancel_transposes

X = {"x": [2, 3, 4, 5]}
Y: dict[str, Any] = {"y": None}
NUMBERS: dict[str, Array] = {
    "half": np.array([0.5], np.float32),
    "last": floats(3),
    "large": np.ones((1, 1, 1, 1, 1), np.float32),
}
TO_LAST = node("Transpose", "x", "t", perm=[0, 2, 3, 1])
BACK = node("Transpose", "f", "y", perm=[0, 3, 1, 2])


def run(nodes: list[Any], wanted: list[str], outputs: Any = None, x: Any = X) -> Any:
    return check(model(nodes, x, outputs or Y, NUMBERS), wanted, cancel_transposes)


@pytest.mark.parametrize(
    "functions",
    [
        [node("Relu", "t", "f")],
        [node("Mul", "half t", "a"), node("Sigmoid", "a", "b"), node("Sub", "b half", "f")],
        [node("Sin", "t", "f")],
        [node("Clip", "t half half", "f")],
    ],
)
def test_around_functions(functions: list[Any]) -> None:
    graph = run([TO_LAST, *functions, BACK], [f.op_type for f in functions])
    assert graph.nodes[-1].fused == [TO_LAST.name, BACK.name]


def test_types_in_between_follow() -> None:
    graph = run(
        [TO_LAST, node("Mul", "half t", "a"), node("Sigmoid", "a", "f"), BACK], ["Mul", "Sigmoid"]
    )
    assert [n.outputs[0].dims for n in graph.nodes] == [(2, 3, 4, 5)] * 2


def test_neighbours() -> None:
    run([TO_LAST, node("Transpose", "t", "f", perm=[0, 3, 1, 2]), node("Relu", "f", "y")], ["Relu"])
    graph = run([TO_LAST, node("Transpose", "t", "y", perm=[0, 1, 3, 2])], ["Transpose"])
    assert graph.nodes[0].attributes["perm"] == (0, 2, 1, 3)


def test_neighbours_of_which_others_read_the_first() -> None:
    nodes = [TO_LAST, node("Transpose", "t", "y", perm=[0, 1, 3, 2]), node("Neg", "t", "z")]
    graph = run(nodes, ["Transpose", "Transpose", "Neg"], {"y": None, "z": None})
    assert graph.nodes[1].inputs[0] is graph.inputs[0]


def test_default_order() -> None:
    run(
        [node("Transpose", "x", "t"), node("Relu", "t", "f"), node("Transpose", "f", "y")], ["Relu"]
    )


def test_transposes_that_do_not_cancel() -> None:
    other = node("Transpose", "f", "y", perm=[0, 2, 1, 3])
    run([TO_LAST, node("Relu", "t", "f"), other], ["Transpose", "Relu", "Transpose"])


@pytest.mark.parametrize("value", ["t", "f"])
def test_values_that_others_read(value: str) -> None:
    nodes = [TO_LAST, node("Relu", "t", "f"), BACK]
    plain = ["Transpose", "Relu", "Transpose"]
    run([*nodes, node("Neg", value, "z")], [*plain, "Neg"], {"y": None, "z": None})
    run(nodes, plain, {"y": None, value: None})


def test_functions_of_axes() -> None:
    for function in (node("Softmax", "t", "f", axis=-1), node("Mul", "t last", "f")):
        run([TO_LAST, function, BACK], ["Transpose", function.op_type, "Transpose"])


def test_number_that_adds_a_dimension() -> None:
    nodes = [
        TO_LAST,
        node("Mul", "t large", "f"),
        node("Transpose", "f", "y", perm=[0, 1, 4, 2, 3]),
    ]
    run(nodes, ["Transpose", "Mul", "Transpose"])


def test_graph_outputs_stay() -> None:
    run([TO_LAST, node("Transpose", "t", "y", perm=[0, 3, 1, 2])], ["Transpose", "Transpose"])
