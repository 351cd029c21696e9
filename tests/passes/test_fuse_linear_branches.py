"""Which linear branches become one layer, which stay and why, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.passes.linear_graphs import example, random_linear_model
from tests.passes.rewriting import check, evaluate, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array, Graph, TensorType
from vkconv.onnx_reader import read_model
from vkconv.passes import PASSES, fuse_linear, infer_and_fold

X = {"x": [2, 4, 6, 7]}
Y: dict[str, Any] = {"y": None}
BOTH: dict[str, Any] = {"y": None, "z": None}
SAME = {"pads": [1, 1, 1, 1]}
CONSTANTS: dict[str, Array] = {
    "w": floats(4, 4, 3, 3, scale=0.3),
    "one": floats(4, 4, 1, 1),
    "row": floats(4, 4, 1, 3),
    "column": floats(4, 4, 3, 1),
    "each": floats(4, 1, 3, 3),
    "narrow": floats(1, 4, 1, 1),
    "wide": floats(4, 1, 3, 3, seed=1),
    "b": floats(4, seed=2),
    "c": floats(4, seed=3),
    "v": floats(4, seed=4) ** 2 + 0.2,
    "scale": floats(4, 1, 1, seed=5),
    "zero": np.zeros(4, np.float32),
    "half": np.array(0.5, np.float32),
    "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}


def norm(x: str, y: str) -> onnx.NodeProto:
    return node("BatchNormalization", f"{x} b c b v", y)


def linear(nodes: list[Any], x: Any = X, y: Any = Y, **changed: Array) -> Graph:
    """The graph after ``fuse_linear`` alone, checked against onnxruntime."""
    proto = model(nodes, x, y, CONSTANTS | changed)
    return check(proto, operators(rewritten(proto, fuse_linear)), fuse_linear)


def kept(nodes: list[Any], y: Any = Y, **changed: Array) -> Graph:
    """Asserts that nothing was fused."""
    graph = linear(nodes, y=y, **changed)
    assert operators(graph) == [n.op_type for n in nodes] and not graph.fusions
    return graph


REPVGG = [
    node("Conv", "x w", "a", **SAME),
    norm("a", "a1"),
    node("Conv", "x one", "d"),
    norm("d", "d1"),
    norm("x", "e1"),
    node("Add", "a1 d1", "s"),
    node("Add", "s e1", "y"),
]


def test_names_and_report() -> None:
    graph = linear(REPVGG)
    (conv,) = graph.nodes
    assert conv.op_type == "Conv" and conv.name == "Conv:a" and conv.outputs[0].name == "y"
    assert [v.name for v in conv.present_inputs] == ["x", "w/fused", "Conv:a/bias"]
    assert conv.attributes == {"pads": (1, 1, 1, 1)}
    (fusion,) = graph.fusions
    assert fusion.into == "Conv:a" and fusion.kind == "parallel branches"
    names = [n.name for n in REPVGG if n.name != "Conv:a"]
    assert list(fusion.nodes) == names == conv.fused
    formula, *rules = fusion.algebra.split("; ")
    assert formula == "y = BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)"
    assert [r.split(" = ")[0] for r in rules] == ["W'", "W'", "BN: s"]
    assert not graph.unfused


def test_in_any_order_of_additions() -> None:
    """1 x 3 and 3 x 1 alone would take more work as one; with the square kernel they do not."""
    parts = [
        node("Conv", "x row", "r", pads=[0, 1, 0, 1]),
        node("Conv", "x column", "c1", pads=[1, 0, 1, 0]),
        node("Conv", "x w", "a", **SAME),
    ]
    last = [node("Add", "r c1", "s"), node("Add", "s a", "y")]
    assert operators(linear([*parts, *last])) == ["Conv"]
    alone = kept([*parts[:2], node("Add", "r c1", "y")])
    (unfused,) = alone.unfused
    assert unfused.reason == "one layer would take 1.4 times the multiplications"


def test_terms_of_a_sum_with_something_else_between() -> None:
    """x + A(h) + B(h): A and B are put together, whatever is added first."""
    nodes = [
        node("Relu", "x", "h"),
        node("Conv", "h w", "a", **SAME),
        node("Add", "x a", "s"),
        node("Conv", "h one", "d"),
        node("Add", "s d", "y"),
    ]
    graph = linear(nodes)
    assert operators(graph) == ["Relu", "Conv", "Add"]
    assert [n.name for n in graph.nodes] == ["Relu:h", "Conv:a", "Add:y"]
    assert graph.fusions[0].nodes == ("Add:s", "Conv:d")


def test_parallel_in_a_matrix_product() -> None:
    """As low-rank updates are written: W x + B (A x) s."""
    rows = {"x": [2, 3, 8]}
    arrays = {"m": floats(8, 8), "down": floats(8, 2), "up": floats(2, 8), "o": floats(8)}
    nodes = [
        node("MatMul", "x m", "a"),
        node("MatMul", "x down", "d"),
        node("MatMul", "d up", "u"),
        node("Mul", "u half", "h"),
        node("Add", "a h", "s"),
        node("Add", "s o", "y"),
    ]
    assert operators(linear(nodes, rows, **arrays)) == ["MatMul", "Add"]
    assert operators(linear(nodes, {"x": [5, 8]}, **arrays)) == ["Gemm"]


def test_border_of_a_normalisation() -> None:
    """Before a padded convolution it stays, unless it makes 0 of 0."""
    nodes = [norm("x", "n"), node("Conv", "n w", "y", **SAME)]
    (unfused,) = kept(nodes).unfused
    assert unfused.nodes == ("BatchNormalization:n", "Conv:y")
    assert "'Conv:y' pads with zeros" in unfused.reason
    nodes[0] = node("BatchNormalization", "x b zero zero v", "n")
    assert operators(linear(nodes)) == ["Conv"]
    assert operators(linear([norm("x", "n"), node("Conv", "n w", "y")])) == ["Conv"]


def test_pads() -> None:
    """A pad becomes part of a convolution, before or behind it, where it pads what is there."""
    pad = node("Pad", "x p", "d")
    graph = linear([pad, node("Conv", "d w", "y")])
    assert graph.nodes[0].attributes["pads"] == (1, 1, 1, 1)
    behind = [node("Conv", "x one", "a"), node("Pad", "a p", "d"), norm("d", "y")]
    assert operators(linear(behind)) == ["Conv"]
    behind[0] = node("Conv", "x one b", "a")
    kept(behind)
    kept([node("Conv", "x w", "a", **SAME), node("Pad", "a p", "y")])
    filled = [node("Conv", "x one b", "a"), node("Pad", "a p half", "d"), norm("d", "y")]
    kept(filled)
    assert operators(linear(filled, b=np.full(4, 0.5, np.float32))) == ["Conv"]


def test_means_over_fewer_elements_stay() -> None:
    pool: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [node("Conv", "x one", "a"), node("AveragePool", "a", "y", **pool)]
    (unfused,) = kept(nodes).unfused
    assert unfused.reason == "'AveragePool:y': its means at the border are over fewer elements"
    nodes[1] = node("AveragePool", "a", "y", count_include_pad=1, **pool)
    assert operators(linear(nodes)) == ["Conv"]


def test_what_others_read_stays() -> None:
    nodes = [node("Conv", "x w", "a"), norm("a", "y")]
    (unfused,) = kept([*nodes, node("Relu", "a", "z")], BOTH).unfused
    assert unfused.nodes == ("Conv:a", "BatchNormalization:y")
    assert unfused.reason == "'a' is read by 'Relu:z' too"
    (unfused,) = kept(nodes, {"y": None, "a": None}).unfused
    assert unfused.reason == "'a' is an output of the model"


def test_across_what_is_not_linear() -> None:
    kept([node("Conv", "x w", "a"), node("Relu", "a", "r"), norm("r", "y")])
    parts = [node("Conv", "x w", "a", **SAME), node("Relu", "a", "r"), node("Conv", "x one", "d")]
    kept([*parts, node("Add", "r d", "y")])


def test_more_work_stays() -> None:
    """A narrow layer between wide ones, a depthwise one before a dense one: nothing is said."""
    assert not kept([node("Conv", "x narrow", "a"), node("Conv", "a wide", "y")]).unfused
    assert not kept([node("Conv", "x each", "a", group=4), node("Conv", "a one", "y")]).unfused
    dilated = node("Conv", "x w", "a", pads=[2] * 4, dilations=[2, 2])
    nodes = [dilated, node("Conv", "x w", "d", **SAME), node("Add", "a d", "y")]
    assert "1.4 times the multiplications" in kept(nodes).unfused[0].reason
    nodes[1] = node("Conv", "x one", "d")
    graph = linear(nodes)
    assert graph.nodes[0].attributes["dilations"] == (2, 2)


def test_branches_of_different_strides_stay() -> None:
    """On one pixel, where their results have one size."""
    nodes = [
        node("Conv", "x one", "a", strides=[2, 2]),
        node("Conv", "x one", "d"),
        node("Add", "a d", "y"),
    ]
    graph = linear(nodes, {"x": [1, 4, 1, 1]})
    assert operators(graph) == ["Conv", "Conv", "Add"]
    assert graph.unfused[0].reason == "the branches have different strides"


def test_weights_shared_by_levels() -> None:
    """Each level has its own normalisation, so each gets weights of its own, under its own name."""
    nodes = [
        node("Conv", "x w", "a", **SAME),
        norm("a", "y"),
        node("Conv", "y w", "d", **SAME),
        node("BatchNormalization", "d c b b v", "z"),
    ]
    graph = linear([*nodes[:2], node("Relu", "y", "r"), node("Conv", "r w", "d"), nodes[3]], y=BOTH)
    names = [v.name for n in graph.nodes for v in n.present_inputs if v.is_constant]
    assert len(names) == len(set(names)) == 4


def test_what_float32_cannot_hold_stays() -> None:
    large = {"b": np.full(4, 3e38, np.float32)}
    nodes = [node("Conv", "x w", "a"), node("Mul", "a thousand", "y")]
    thousand = np.array(1e3, np.float32)
    assert operators(linear(nodes, thousand=thousand)) == ["Conv"]
    proto = model(
        [node("Conv", "x w b", "a"), nodes[1]], X, Y, CONSTANTS | large | {"thousand": thousand}
    )
    graph = rewritten(proto, fuse_linear)
    assert operators(graph) == ["Conv", "Mul"]
    assert graph.unfused[0].reason == "the weights of one layer would not fit float32"
    for changed in ({"v": np.full(4, -1, np.float32)}, {"w": np.full((4, 4, 3, 3), np.nan, "f4")}):
        proto = model([node("Conv", "x w", "a"), norm("a", "y")], X, Y, CONSTANTS | changed)
        assert operators(rewritten(proto, fuse_linear)) == ["Conv", "BatchNormalization"]


def test_a_long_chain() -> None:
    """Thousands of factors are one, at no depth that Python would mind."""
    count = 1500
    nodes = [node("Conv", "x w", "t0")]
    nodes += [node("Mul", f"t{i} f", f"t{i + 1}") for i in range(count)]
    proto = model(
        [*nodes, node("Identity", f"t{count}", "y")], X, Y, CONSTANTS | {"f": np.array(0.999, "f4")}
    )
    graph = rewritten(proto, fuse_linear)
    assert operators(graph) == ["Conv"] and len(graph.nodes[0].fused) == count
    weights = graph.nodes[0].inputs[1]
    assert weights is not None and weights.array is not None
    factor = float(np.float32(0.999)) ** count
    np.testing.assert_allclose(weights.array, CONSTANTS["w"] * factor, rtol=1e-6)


@pytest.mark.parametrize("kind", ["Add", "Sum"])
def test_sums_that_double_and_double(kind: str) -> None:
    """A formula of 2**60 terms is not written out."""
    nodes = [node("Conv", "x w", "t0")]
    nodes += [node(kind, f"t{i} t{i}", f"t{i + 1}") for i in range(60)]
    graph = linear([*nodes, node("Mul", "t60 small", "y")], small=np.array(2.0**-60, np.float32))
    assert operators(graph) == ["Conv"] and len(graph.fusions[0].algebra) < 2000


def test_a_pool_of_any_size_allocates_nothing() -> None:
    margin = np.array([0, 0, 20000, 20000, 0, 0, 20000, 20000])
    nodes = [
        node("Pad", "x margin", "d"),
        node("AveragePool", "d", "a", kernel_shape=[40000, 40000]),
        node("Conv", "a each", "y", group=4, pads=[1, 1, 1, 1]),
    ]
    graph = read_model(model(nodes, X, Y, CONSTANTS | {"margin": margin}))
    infer_and_fold(graph)
    fuse_linear(graph)
    assert operators(graph)[0] in ("Pad", "AveragePool") and "Conv" in operators(graph)


def test_activations_spelled_out_are_left_to_their_pass() -> None:
    """x clip(x + 3, 0, 6) / 6: the 3 is no bias of the convolution, the 1/6 no factor of the
    next."""
    constants = {"three": np.array(3, "f4"), "six": np.array(6, "f4"), "nought": np.array(0, "f4")}
    nodes = [
        node("Conv", "x w", "a", **SAME),
        node("Add", "a three", "s"),
        node("Clip", "s nought six", "k"),
        node("Mul", "a k", "m"),
        node("Div", "m six", "h"),
        node("Conv", "h one", "y"),
    ]
    proto = model(nodes, X, Y, CONSTANTS | constants)
    graph = rewritten(proto, fuse_linear)
    assert operators(graph) == [n.op_type for n in nodes] and not graph.unfused
    assert operators(rewritten(proto, *PASSES)) == ["Conv+", "Conv"]


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    """In float64 what is fused is what it was, to rounding; with sizes known and open alike."""
    x = example(seed)
    for open_sizes in (False, True):
        proto = random_linear_model(seed, open_sizes=open_sizes)
        results = []
        for fuse in (False, True):
            graph = read_model(proto)
            infer_and_fold(graph)
            if fuse:
                fuse_linear(graph)
                names = [v.name for n in graph.nodes for v in n.outputs]
                assert len(names) == len(set(names))
                assert all(not n.domain for n in graph.nodes)
            graph.inputs[0].type = TensorType("float64", x.shape)
            infer_and_fold(graph)
            results.append(evaluate(graph, {"x": x}))
        for before, after in zip(*results, strict=True):
            assert before.shape == after.shape
            error = float(np.sum((after - before) ** 2))
            assert error <= 1e-22 * max(float(np.sum(before**2)), 1e-12)


def test_random_graphs_fuse_much() -> None:
    """The test above has something to test."""
    count = 0
    for seed in range(40):
        graph = read_model(random_linear_model(seed))
        infer_and_fold(graph)
        fuse_linear(graph)
        count += len(graph.fusions)
    assert count > 30
