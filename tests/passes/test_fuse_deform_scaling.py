"""Factors and offsets behind a deformable convolution move into its weights, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array
from vkconv.passes.fuse_deform_scaling import fuse_deform_scaling

X = {"x": [2, 4, 5, 3], "o": [2, 8, 4, 2], "m": [2, 4, 4, 2], "z": [2, 6, 4, 2]}
NUMBERS: dict[str, Array] = {
    "w": floats(6, 2, 2, 2, scale=2),
    "b": floats(6, seed=1),
    "scale": floats(6, 1, 1, seed=2),
    "shift": floats(1, 6, 1, 1, seed=3),
    "six": floats(6, seed=4),
    "mean": floats(6, seed=5),
    "variance": floats(6, seed=6) ** 2 + 0.1,
    "half": np.array(0.5, np.float32),
    "pixels": floats(4, 1, seed=7),
    "large": np.full((6, 1, 1), 3e38, np.float32),
    "none": np.array(0, np.float32),
}
BN = node("BatchNormalization", "c six b mean variance", "d")


def deform(inputs: str = "x w o b m", output: str = "c") -> Any:
    return node("DeformConv", inputs, output, group=2)


def run(nodes: list[Any], wanted: list[str], outputs: Any = None) -> Any:
    taken = {name for n in nodes for name in n.input} & X.keys()
    inputs = {name: shape for name, shape in X.items() if name in taken}
    proto = model(nodes, inputs, outputs or {"y": None}, NUMBERS, opset=20)
    return check(proto, wanted, fuse_deform_scaling)


@pytest.mark.parametrize("inputs", ["x w o b m", "x w o b", "x w o", "x w o  m"])
def test_normalization_and_more_behind_it(inputs: str) -> None:
    """All of what follows goes, whether there is a bias or not, a mask or not."""
    conv = deform()
    del conv.input[:]
    conv.input.extend(inputs.split(" "))
    graph = run(
        [conv, BN, node("Mul", "scale d", "e"), node("Sub", "shift e", "f"),
         node("Mul", "f half", "y")],
        ["DeformConv"],
    )  # fmt: skip
    (kept,) = graph.nodes
    assert len(kept.fused) == 4
    (fusion,) = graph.fusions
    assert fusion.kind == "DeformConv + BatchNormalization + Mul + Sub + Mul"
    assert fusion.into == kept.name and "W' = s W" in fusion.algebra


def test_up_to_an_activation() -> None:
    run(
        [deform(), BN, node("Relu", "d", "e"), node("Mul", "e scale", "y")],
        ["DeformConv", "Relu", "Mul"],
    )


@pytest.mark.parametrize(
    ("last", "left"),
    [
        (node("Mul", "c pixels", "y"), ["DeformConv", "Mul"]),  # varies along the rows
        (node("Mul", "c z", "y"), ["DeformConv", "Mul"]),  # computed
        (node("Mul", "c large", "y"), ["DeformConv", "Mul"]),  # more than the type holds
        (node("Mul", "c c", "y"), ["DeformConv", "Mul"]),
        (node("Div", "c none", "y"), ["DeformConv", "Div"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_stays(last: Any, left: list[str]) -> None:
    inputs = {name: shape for name, shape in X.items() if name != "z" or "z" in last.input}
    proto = model([deform(), last], inputs, {"y": None}, NUMBERS, opset=20)
    graph = rewritten(proto, fuse_deform_scaling)
    assert operators(graph) == left and not graph.fusions


def test_what_is_read_elsewhere_stays() -> None:
    nodes = [deform(), node("Mul", "c scale", "y"), node("Relu", "c", "s")]
    run(nodes, ["DeformConv", "Mul", "Relu"], {"y": None, "s": None})
    run([deform(), node("Mul", "c scale", "y")], ["DeformConv", "Mul"], {"y": None, "c": None})


def test_weights_that_are_computed_stay() -> None:
    nodes = [node("Relu", "w0", "v"), deform("x v o b"), node("Mul", "c scale", "y")]
    inputs = {"x": X["x"], "o": X["o"], "w0": [6, 2, 2, 2]}
    proto = model(nodes, inputs, {"y": None}, NUMBERS, opset=20)
    check(proto, ["Relu", "DeformConv", "Mul"], fuse_deform_scaling)
