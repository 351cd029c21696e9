"""Factors and offsets of channels move into the conversion to C4 behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import evaluate, operators, rewritten
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.ir import Array, Graph
from vkconv.passes import assign_layouts
from vkconv.passes.fuse_conversion_affine import fuse_conversion_affine

X = {"x": [2, 3, 5, 7]}
CONSTANTS: dict[str, Array] = {
    "w": floats(4, 3, 3, 3),
    "mean": floats(1, 3, 1, 1, seed=1),
    "std": np.abs(floats(3, 1, 1, seed=2)) + 0.5,
    "number": np.float32(255),
    "map": floats(1, 3, 5, 7),
    "zero": np.zeros((3, 1, 1), np.float32),
    **{f"bn{i}": np.abs(floats(3, seed=i)) + 0.2 for i in range(4)},
}
CONV = node("Conv", "n w", "y", pads=[1, 1, 1, 1])


def run(
    nodes: list[Any],
    wanted: list[str],
    inputs: dict[str, Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
) -> Graph:
    """The graph after the layouts and the pass; it means what the model does."""
    proto = model(nodes, inputs or X, dict.fromkeys(outputs), CONSTANTS)
    graph = rewritten(proto, lambda _: None)
    assign_layouts(graph, DeviceCaps())
    fuse_conversion_affine(graph)
    assert operators(graph) == wanted
    random = np.random.default_rng(1)
    feeds = {
        v.name: np.asarray(random.standard_normal(v.dims) * 3).astype(v.dtype) for v in graph.inputs
    }
    assert_same(evaluate(graph.copy(), feeds), expected(proto, feeds))
    return graph


NORMALISATIONS = [
    [node("Sub", "x mean", "a"), node("Div", "a std", "n")],
    [node("Div", "x number", "a"), node("Sub", "a mean", "b"), node("Mul", "std b", "n")],
    [node("Mul", "x number", "a"), node("Add", "number a", "n")],
    [node("Sub", "mean x", "n")],
    [node("Neg", "x", "n")],
    [node("BatchNormalization", "x bn0 bn1 bn2 bn3", "n")],
]


@pytest.mark.parametrize("nodes", NORMALISATIONS, ids=lambda n: "-".join(i.op_type for i in n))
def test_normalisations(nodes: list[Any]) -> None:
    graph = run([*nodes, CONV], ["ToC4+", "Conv", "ToLinear+"])
    conversion = graph.nodes[0]
    assert conversion.inputs[0] is graph.inputs[0]
    assert conversion.fused == [n.name for n in nodes]
    assert [v.dims for v in conversion.inputs[1:] if v is not None] == [(3,), (3,)]


def test_what_lies_before_stays() -> None:
    nodes = [node("Relu", "x", "a"), node("Mul", "a std", "n"), CONV]
    run(nodes, ["Relu", "ToC4+", "Conv", "ToLinear+"])


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", "x map", "n")],
        [node("Div", "number x", "n")],
        [node("Mul", "x x", "n")],
        [node("Mul", "x s", "n")],
        [node("Relu", "x", "n")],
    ],
    ids=["map", "reciprocal", "square", "computed", "relu"],
)
def test_others_are_left(nodes: list[Any]) -> None:
    kinds = [n.op_type for n in nodes]
    inputs = X | ({"s": [1, 3, 1, 1]} if "s" in nodes[0].input else {})
    run([*nodes, CONV], [*kinds, "ToC4+", "Conv", "ToLinear+"], inputs)


def test_a_division_by_zero_is_left() -> None:
    proto = model([node("Div", "x zero", "n"), CONV], X, {"y": None}, CONSTANTS)
    graph = rewritten(proto, lambda _: None)
    assign_layouts(graph, DeviceCaps())
    fuse_conversion_affine(graph)
    assert operators(graph) == ["Div", "ToC4+", "Conv", "ToLinear+"]


def test_one_channel_spread_over_three_is_left() -> None:
    nodes = [node("Mul", "x std", "n"), CONV]
    run(nodes, ["Mul", "ToC4+", "Conv", "ToLinear+"], {"x": [2, 1, 5, 7]})


def test_a_result_that_is_read_elsewhere_or_an_output() -> None:
    nodes = [node("Mul", "x std", "n"), CONV]
    run(nodes, ["Mul", "ToC4+", "Conv", "ToLinear+"], outputs=("y", "n"))
    nodes.append(node("Flatten", "n", "f"))
    run(nodes, ["Mul", "ToC4+", "Conv", "Flatten", "ToLinear+"], outputs=("y", "f"))


@pytest.mark.parametrize("disabled", ["", "texel", "unrolling"])
@pytest.mark.parametrize("shape", [[2, 3, 5, 7], [1, 3, 6, 10], [2, 6, 4, 3], [1, 5, 9]])
def test_on_the_device(shape: list[int], disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of whole vec4s and of others, channels that fill blocks and that do not."""
    monkeypatch.setenv("VKCONV_DISABLE", f"plan_cache,{disabled}")
    channels, ones = shape[1], [1] * (len(shape) - 2)
    constants = {
        "mean": floats(channels, *ones, seed=1),
        "std": np.abs(floats(channels, *ones, seed=2)) + 0.5,
        "w": floats(4, channels, *[3] * len(ones)),
    }
    nodes = [node("Sub", "x mean", "a"), node("Div", "a std", "n"),
             node("Conv", "n w", "y", pads=[1] * 2 * len(ones))]  # fmt: skip
    proto = model(nodes, {"x": shape}, {"y": None}, constants)
    feeds = {"x": floats(*shape, scale=3)}
    with guarded_arenas() as guard, InferenceSession(proto.SerializeToString()) as session:
        session.run(None, {"x": np.roll(feeds["x"], 1)})
        guard.poison()
        found = session.run(None, feeds)
        guard.check()
        (stage,) = session._stages.values()
        kernels = [d.kernel for d in stage.plan.dispatches]
        placed = {p.node: p.where for p in session.placement}
    assert kernels[0] == "to_c4" and "binary" not in kernels
    assert placed["Sub:a"] == placed["Div:n"] == "fused"
    assert_same(found, expected(proto, feeds))
