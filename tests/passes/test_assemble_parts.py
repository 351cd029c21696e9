"""What cuts, moves, computes and joins becomes one node of parts: when, when not, and what it
means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.passes.decoders import of_distances, with_anchors, without_anchors
from tests.passes.rewriting import evaluate, operators, rewritten
from tests.plan_file.models import compiled
from tests.random_graphs import random_model
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.ir import Array, Graph
from vkconv.passes import assign_layouts
from vkconv.passes.assemble_parts import MOST_PARTS, assemble_parts

CAPS = DeviceCaps(kind="cpu")
LEVELS = ((4, 8), (3, 5), (1, 1))


def random_feeds(graph: Graph) -> dict[str, Array]:
    return {v.name: floats(*v.dims, seed=i, scale=2) for i, v in enumerate(graph.inputs)}


def run(proto: onnx.ModelProto, caps: DeviceCaps = CAPS) -> Graph:
    """The graph after the layouts and the pass; it means what the model does."""
    graph = rewritten(proto, lambda _: None)
    assign_layouts(graph, caps)
    assemble_parts(graph, caps)
    feeds = random_feeds(graph)
    assert_same(evaluate(graph.copy(), feeds), expected(proto, feeds))
    return graph


def parts(graph: Graph) -> list[int]:
    """How many each assembly has."""
    return [len(n.attributes["parts"]) for n in graph.nodes if n.op_type == "Assemble"]


def on_the_device(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[str]:
    """Kernels of the plan, whose results are right in memory that holds poison."""
    with guarded_arenas() as guard, InferenceSession(proto.SerializeToString()) as session:
        session.run(None, {name: np.roll(x, 1) for name, x in feeds.items()})
        guard.poison()
        found = session.run(None, feeds)
        guard.check()
        (stage,) = session._stages.values()
        assert_same(found, expected(proto, feeds))
        return [d.kernel for d in stage.plan.dispatches]


# --- decoders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("split", "power"), [(True, False), (False, True)])
def test_anchors(batch: int, split: bool, power: bool) -> None:
    graph = run(with_anchors(LEVELS, batch=batch, split=split, power=power))
    assert operators(graph) == ["Assemble+"]
    (node,) = graph.nodes
    assert len(node.attributes["parts"]) == 3 * len(LEVELS)
    assert node.name == "Concat:y" and {"Sigmoid:s0", "Reshape:o2"} <= set(node.fused)
    assert [v for v in node.inputs if v is not None and not v.is_constant] == graph.inputs


@pytest.mark.parametrize("batch", [1, 2])
def test_levels_joined_first(batch: int) -> None:
    """A part ends where an input of a Concat does: boxes in two, objects, classes, each level."""
    graph = run(without_anchors(LEVELS, batch=batch))
    assert operators(graph) == ["Assemble+"] and parts(graph) == [4 * len(LEVELS)]


@pytest.mark.parametrize("batch", [1, 2])
def test_distances(batch: int) -> None:
    """Corners that two parts read stay nodes: one part goes on from them, the other reads them
    beside."""
    graph = run(of_distances(12, batch=batch))
    assert operators(graph) == ["Split", "Sub", "Add", "Assemble+"] and parts(graph) == [3]


@pytest.mark.parametrize("disabled", ["", "texel", "subgroup", "unrolling"])
@pytest.mark.parametrize("batch", [1, 2])
def test_on_the_device(batch: int, disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of whole vec4s and of others."""
    monkeypatch.setenv("VKCONV_DISABLE", f"plan_cache,{disabled}")
    for proto in (
        with_anchors(LEVELS, batch=batch),
        with_anchors(((6, 6),), batch=batch, channels=8, power=True),
        without_anchors(LEVELS, batch=batch),
        of_distances(12, batch=batch),
    ):
        made = on_the_device(proto, random_feeds(rewritten(proto, lambda _: None)))
        if disabled == "unrolling":
            assert "assemble" not in made


def test_dispatches_of_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a part, none of which waits for another."""
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    proto = with_anchors(LEVELS)
    with InferenceSession(proto.SerializeToString(), device="auto") as session:
        if not session._device.caps.unrolls_loops:
            return
        session.warmup()
        (stage,) = session._stages.values()
        assert [(d.kernel, d.barrier) for d in stage.plan.dispatches] == [("assemble", False)] * 9
        placed = {p.node: p.where for p in session.placement}
    assert placed["Transpose:t0"] == placed["Sigmoid:s2"] == placed["Mul:size1"] == "fused"


@pytest.mark.parametrize("name", ["anchors", "levels", "distances"])
def test_a_plan_file(name: str, tmp_path: Path) -> None:
    """A plan with assemblies passes the checks of what comes from a file."""
    make = {
        "anchors": lambda: with_anchors(LEVELS, batch=2, power=True),
        "levels": lambda: without_anchors(LEVELS),
        "distances": lambda: of_distances(12),
    }
    proto = make[name]()
    feeds = random_feeds(rewritten(proto, lambda _: None))
    path = compiled(proto, tmp_path / "model.vkplan")
    with InferenceSession(path) as session, InferenceSession(proto) as other:
        assert_same(session.run(None, feeds), other.run(None, feeds))
        assert session.describe_plan() == other.describe_plan()


def test_open_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    proto = with_anchors(LEVELS, batch="n")
    with InferenceSession(proto.SerializeToString()) as session:
        for batch in (1, 3, 2):
            feeds = {f"x{i}": floats(batch, 27, *hw, seed=i) for i, hw in enumerate(LEVELS)}
            assert_same(session.run(None, feeds), expected(proto, feeds))


def test_what_is_an_output_too_stays() -> None:
    """The parts then begin there, or end."""
    graph = run(with_anchors(LEVELS, outputs=("y", "t0", "s1")))
    assert parts(graph) == [1, 9]
    kinds = {v.name: n.op_type for n in graph.nodes for v in n.outputs}
    assert kinds == {
        "r0": "Reshape", "t0": "Transpose", "s1": "Assemble", "y": "Assemble"
    }  # fmt: skip


# --- when it does not -------------------------------------------------------------------------

X = {"x": [2, 6, 4, 5]}
NUMBERS: dict[str, Array] = {"two": np.float32(2), "map": floats(5, 4)}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Transpose", "x", "y", perm=[0, 2, 3, 1])],
        [node("Relu", "x", "a"), node("Mul", "a two", "b"), node("Sigmoid", "b", "y")],
        [
            node("Split", "x", "a b", axis=1),
            node("Relu", "a", "c"),
            node("Concat", "c b", "y", axis=1),
        ],
        [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Softmax", "a", "y")],
    ],
    ids=["alone", "functions", "parts", "softmax"],
)
def test_what_gains_nothing_is_left(nodes: list[Any]) -> None:
    proto = model(nodes, X | {"x": [1, 6, 4, 5]}, {"y": None}, NUMBERS)
    assert operators(run(proto)) == [n.op_type for n in nodes]


def test_integers_and_the_host_are_left() -> None:
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Mul", "a a", "y")]
    proto = model(nodes, {"x": ("int32", [1, 2, 3, 4])}, {"y": ("int32", None)})
    graph = rewritten(proto, lambda _: None)
    assign_layouts(graph, CAPS)
    assemble_parts(graph, CAPS)
    assert operators(graph) == ["Transpose", "Mul"]
    reference = DeviceCaps(kind="reference", host_only=True)
    graph = rewritten(with_anchors(LEVELS), lambda _: None)
    assign_layouts(graph, reference)
    assemble_parts(graph, reference)
    assert "Assemble+" not in operators(graph)


def test_channel_blocks_are_left() -> None:
    """In C4 the same operators are views."""
    nodes = [
        node("Conv", "x w", "c"), node("Split", "c", "a b", axis=1), node("Relu", "a", "d"),
        node("Neg", "b", "e"), node("Concat", "e d", "f", axis=1), node("Conv", "f v", "y"),
    ]  # fmt: skip
    weights = {"w": floats(8, 6, 1, 1), "v": floats(3, 8, 1, 1)}
    assert "Assemble+" not in operators(run(model(nodes, X, {"y": None}, weights)))


def test_compilers_that_fold_nothing() -> None:
    caps = DeviceCaps(kind="cpu", unrolls_loops=False)
    assert "Assemble+" not in operators(run(with_anchors(LEVELS), caps))


def test_a_value_that_others_read_stays() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 2, 3, 1]),
        node("Mul", "a two", "b"),
        node("Sigmoid", "b", "y"),
        node("Softmax", "b", "z"),
    ]
    graph = run(model(nodes, X, {"y": None, "z": None}, NUMBERS))
    assert operators(graph) == ["Assemble+", "Sigmoid", "Softmax"]


def test_a_chain_beyond_the_kernel_s_room() -> None:
    """Its end is one assembly, and what is left begins another."""
    kinds = ("Sigmoid", "Relu", "Neg", "Abs", "Tanh", "Softplus", "Sin", "Exp", "Relu")
    nodes = [node("Transpose", "x", "v0", perm=[0, 2, 3, 1])]
    nodes += [node(kind, f"v{i}", f"v{i + 1}") for i, kind in enumerate(kinds)]
    nodes.append(node("Transpose", "v9", "y", perm=[0, 2, 1, 3]))
    graph = run(model(nodes, X, {"y": None}))
    assert operators(graph) == ["Assemble+", "Sin", "Assemble+"]


def test_more_parts_than_any_decoder() -> None:
    count = MOST_PARTS + 1
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("Relu", "t", "r")]
    nodes.append(node("Split", "r", " ".join(f"p{i}" for i in range(count)), axis=2))
    nodes += [node("Neg", f"p{i}", f"n{i}") for i in range(count)]
    nodes.append(node("Concat", " ".join(f"n{i}" for i in range(count)), "y", axis=1))
    graph = run(model(nodes, {"x": [2, count, 3]}, {"y": None}))
    assert "Assemble+" not in operators(graph)[-1:]


def test_a_buffer_that_the_device_cannot_bind() -> None:
    caps = DeviceCaps(kind="cpu", max_storage_buffer_range=4 * 26 * 9)
    assert "Assemble+" not in operators(run(with_anchors(((4, 8),)), caps))


# --- arbitrary chains of moves ----------------------------------------------------------------


def moves(seed: int) -> onnx.ModelProto:
    """Transpositions, slices, reshapes, functions and joins in any order; mostly fusible."""
    random = np.random.default_rng(seed)
    shape = [int(n) for n in random.choice([1, 2, 3, 4, 6], 4)]
    nodes: list[Any] = []
    constants: dict[str, Array] = {}
    inputs = {"x": list(shape)}
    at = "x"
    for i in range(int(random.integers(3, 9))):
        name, rank = f"v{i}", len(shape)
        kind = random.choice(["transpose", "slice", "reshape", "binary", "unary", "join", "split"])
        axis = int(random.integers(rank))
        if kind == "transpose":
            order = [int(a) for a in random.permutation(rank)]
            nodes.append(node("Transpose", at, name, perm=order))
            shape = [shape[a] for a in order]
        elif kind == "slice":
            step = int(random.choice([1, 1, 2, -1]))
            first = int(random.integers(shape[axis]))
            start, end = (shape[axis], -1000) if step < 0 else (first, 1000)
            bounds = {"s": [start], "e": [end], "a": [axis], "t": [step]}
            constants |= {f"{k}{i}": np.array(v) for k, v in bounds.items()}
            nodes.append(node("Slice", f"{at} s{i} e{i} a{i} t{i}", name))
            shape[axis] = len(range(shape[axis])[slice(start, end, step)])
        elif kind == "reshape":
            shape = [shape[0], int(np.prod(shape[1:])), 1] if random.random() < 0.5 else [
                *shape[:axis], 1, *shape[axis:]]  # fmt: skip
            if len(shape) > 5:
                shape = [int(np.prod(shape[:3])), *shape[3:]]
            constants[f"n{i}"] = np.array(shape)
            nodes.append(node("Reshape", f"{at} n{i}", name))
        elif kind == "binary":
            broadcast = [n if random.random() < 0.5 else 1 for n in shape]
            constants[f"c{i}"] = floats(*broadcast[int(random.integers(rank)) :], seed=i)
            operands = [at, f"c{i}"][:: int(random.choice([1, -1]))]
            nodes.append(node(str(random.choice(["Add", "Sub", "Mul", "Max"])),
                              " ".join(operands), name))  # fmt: skip
        elif kind == "unary":
            nodes.append(node(str(random.choice(["Sigmoid", "LeakyRelu", "Neg"])), at, name))
        elif kind == "join":
            inputs[f"x{i}"] = list(shape)
            nodes.append(node("Concat", f"{at} x{i}", name, axis=axis))
            shape[axis] *= 2
        elif shape[axis] % 2 == 0:
            nodes += [node("Split", at, f"l{i} r{i}", axis=axis), node("Neg", f"l{i}", f"k{i}"),
                      node("Concat", f"r{i} k{i}", name, axis=axis)]  # fmt: skip
        else:
            nodes.append(node("Abs", at, name))
        at = name
    nodes.append(node("Identity", at, "y"))
    return model(nodes, inputs, {"y": None}, constants)


def test_random_moves() -> None:
    assembled = sum(bool(parts(run(moves(seed)))) for seed in range(150))
    assert assembled > 75


def test_random_moves_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    for seed in range(150, 170):
        proto = moves(seed)
        on_the_device(proto, random_feeds(rewritten(proto, lambda _: None)))


def test_random_models() -> None:
    for seed in range(20):
        proto = random_model(seed)
        graph = rewritten(proto)
        assign_layouts(graph, CAPS)
        assemble_parts(graph, CAPS)
        feeds = random_feeds(graph)
        assert_same(evaluate(graph, feeds), expected(proto, feeds))
