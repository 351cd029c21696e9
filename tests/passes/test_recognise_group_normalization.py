"""GroupNormalization spelt out in reshapes becomes one node; what only looks like it stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import check
from tests.small_models import floats, model, node
from vkconv.passes.recognise_group_normalization import recognise_group_normalization

PASS = recognise_group_normalization
X = {"x": [2, 6, 5, 3]}
OUT = {"y": [2, 6, 5, 3]}
CONSTANTS = {
    "groups": np.array([0, 3, -1]),
    "shape": np.array([2, 6, 5, 3]),
    "s": floats(3, seed=1),
    "t": floats(3, seed=2),
    "w": floats(6, 1, 1, seed=3),
    "b": floats(1, 6, 1, 1, seed=4),
    "number": floats(1, seed=5),
    "row": floats(3, seed=6),
}
NORM = [
    node("Reshape", "x groups", "a"),
    node("InstanceNormalization", "a s t", "n", epsilon=1e-3),
    node("Reshape", "n shape", "r"),
]
SPELT = ["Reshape", "InstanceNormalization", "Reshape"]


def run(nodes: list[Any], wanted: list[str], **changed: Any) -> Any:
    outputs = changed.pop("outputs", OUT)
    return check(model(nodes, X, outputs, CONSTANTS | changed), wanted, PASS)


def test_with_scale_and_bias() -> None:
    graph = run([*NORM, node("Mul", "r w", "m"), node("Add", "b m", "y")], ["GroupNormalization"])
    (found,) = graph.nodes
    assert found.attributes == {"num_groups": 3, "epsilon": pytest.approx(1e-3)}
    assert set(found.fused) == {n.name for n in NORM} | {"Mul:m"}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", "r w", "y")],
        [node("Add", "r b", "y")],
        [node("Mul", "number r", "m"), node("Add", "m b", "y")],
        [node("Identity", "r", "y")],
    ],
)
def test_with_less(nodes: list[Any]) -> None:
    rest = ["Identity"] * (nodes[0].op_type == "Identity")
    run([*NORM, *nodes], ["GroupNormalization", *rest])


def test_one_group_and_a_group_for_each_channel() -> None:
    for count in (1, 6):
        run(
            [*NORM, node("Mul", "r w", "y")],
            ["GroupNormalization"],
            groups=np.array([2, count, 90 // count]),
            s=floats(count),
            t=floats(count),
        )


def test_a_reshape_that_others_read_stays_for_them() -> None:
    nodes = [*NORM, node("Mul", "r w", "y"), node("Relu", "a", "z")]
    run(nodes, ["Reshape", "GroupNormalization", "Relu"], outputs={"y": None, "z": None})


def test_addition_before_the_product_is_not_taken_for_one_behind_it() -> None:
    run([*NORM, node("Add", "r b", "m"), node("Mul", "m w", "y")], ["GroupNormalization", "Mul"])


@pytest.mark.parametrize(
    ("nodes", "rest"),
    [
        ([node("Mul", "r row", "y")], ["Mul"]),
        ([node("Mul", "r r", "y")], ["Mul"]),
        ([node("Mul", "r x", "y")], ["Mul"]),
    ],
)
def test_other_factors_stay_outside(nodes: list[Any], rest: list[str]) -> None:
    run([*NORM, *nodes], ["GroupNormalization", *rest])


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": np.array([2, 6, 3, 5])},
        {"groups": np.array([1, 3, -1]), "shape": np.array([2, 6, 5, 3])},
        {"groups": np.array([2, 5, 18]), "s": floats(5), "t": floats(5)},
    ],
)
def test_other_shapes_stay(changed: dict[str, Any]) -> None:
    run([*NORM, node("Relu", "r", "y")], [*SPELT, "Relu"], outputs={"y": None}, **changed)


def test_a_result_that_is_read_twice_stays() -> None:
    nodes = [*NORM, node("Relu", "n", "z"), node("Relu", "r", "y")]
    run(nodes, [*SPELT, "Relu", "Relu"], outputs={"y": None, "z": None})


def test_the_factor_of_a_result_that_is_read_twice_stays() -> None:
    nodes = [*NORM, node("Mul", "r w", "m"), node("Add", "m r", "y")]
    run(nodes, ["GroupNormalization", "Mul", "Add"])
