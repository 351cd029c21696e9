"""Nested maxima of one tensor read each other, and give the same numbers to the bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.passes.rewriting import check, rewritten
from tests.small_models import expected, model, node
from vkconv import InferenceSession
from vkconv.passes.chain_max_pools import chain_max_pools

PASS = chain_max_pools
X = {"x": [2, 5, 7, 9]}


def pool(size: int, source: str, result: str, **more: object) -> onnx.NodeProto:
    pads = [size // 2, size // 2, (size - 1) // 2, (size - 1) // 2]
    given = {"kernel_shape": [size, size], "pads": pads, "strides": [1, 1], **more}
    return node("MaxPool", source, result, **given)


def pyramid(*sizes: int) -> onnx.ModelProto:
    names = [f"p{i}" for i in range(len(sizes))]
    nodes = [pool(k, "x", n) for k, n in zip(sizes, names, strict=True)]
    return model([*nodes, node("Concat", " ".join(["x", *names]), "y", axis=1)], X, {"y": None})


def windows(proto: onnx.ModelProto) -> list[tuple[str, tuple[int, ...]]]:
    """(what it reads, its window) of each maximum, in order."""
    graph = rewritten(proto, PASS)
    return [
        (n.inputs[0].name if n.inputs[0] else "", n.attributes["kernel_shape"])
        for n in graph.nodes
        if n.op_type == "MaxPool"
    ]


def test_spatial_pyramid() -> None:
    proto = pyramid(5, 9, 13)
    assert windows(proto) == [("x", (5, 5)), ("p0", (5, 5)), ("p1", (5, 5))]
    check(proto, ["MaxPool", "MaxPool", "MaxPool", "Concat"], PASS, PASS)


def test_in_any_order() -> None:
    proto = pyramid(13, 5, 9)
    assert windows(proto) == [("x", (5, 5)), ("p1", (5, 5)), ("p2", (5, 5))]
    check(proto, ["MaxPool", "MaxPool", "MaxPool", "Concat"], PASS)


@pytest.mark.parametrize("sizes", [(3, 5), (4, 7), (2, 3, 6), (5, 5, 6), (1, 3)])
def test_other_sizes_mean_the_same(sizes: tuple[int, ...]) -> None:
    check(pyramid(*sizes), ["MaxPool"] * len(sizes) + ["Concat"], PASS)


def test_uneven_windows() -> None:
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[3, 1], pads=[1, 0, 1, 0]),
        node("MaxPool", "x", "b", kernel_shape=[5, 3], pads=[2, 1, 2, 1]),
        node("Add", "a b", "y"),
    ]
    proto = model(nodes, X, {"y": None})
    assert windows(proto) == [("x", (3, 1)), ("a", (3, 3))]
    check(proto, ["MaxPool", "MaxPool", "Add"], PASS)


def test_volumes_and_lines() -> None:
    for dims in ([1, 3, 9], [1, 2, 4, 5, 6]):
        rank = len(dims) - 2
        nodes = [
            node("MaxPool", "x", n, kernel_shape=[k] * rank, pads=[k // 2] * 2 * rank)
            for k, n in ((3, "a"), (5, "b"))
        ]
        proto = model([*nodes, node("Add", "a b", "y")], {"x": dims}, {"y": None})
        assert windows(proto)[1] == ("a", (3,) * rank)
        check(proto, ["MaxPool", "MaxPool", "Add"], PASS)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("stride", {"strides": [2, 2]}),
        ("dilation", {"dilations": [2, 2], "kernel_shape": [5, 5], "pads": [4] * 4}),
        ("smaller result", {"pads": [3] * 4}),
        ("shifted beyond the first", {"pads": [0, 0, 8, 8]}),
        ("wide one way, narrow the other", {"kernel_shape": [9, 3], "pads": [4, 1, 4, 1]}),
    ],
)
def test_what_stays(name: str, second: dict[str, object]) -> None:
    nodes = [pool(5, "x", "a"), pool(9, "x", "b", **second)]
    proto = model(nodes, {"x": [2, 5, 17, 19]}, {"a": None, "b": None})
    assert [source for source, _ in windows(proto)] == ["x", "x"], name
    check(proto, ["MaxPool", "MaxPool"], PASS)


def test_indices_and_other_tensors_stay() -> None:
    nodes = [
        node("MaxPool", "x", "a i", kernel_shape=[5, 5], pads=[2] * 4),
        pool(9, "x", "b"),
        node("Neg", "x", "n"),
        pool(13, "n", "c"),
    ]
    proto = model(nodes, X, {"a": None, "b": None, "c": None, "i": None})
    assert [source for source, _ in windows(proto)] == ["x", "x", "n"]


def test_integers_stay() -> None:
    nodes = [pool(3, "x", "a"), pool(5, "x", "b")]
    proto = model(nodes, {"x": ("uint8", [1, 2, 5, 5])}, {"a": None, "b": None})
    assert [source for source, _ in windows(proto)] == ["x", "x"]


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 8, 10, 10), (1, 3, 3, 23)])
def test_same_bits_on_the_device(shape: tuple[int, ...]) -> None:
    """Maxima of the same numbers: equal, not close."""
    nodes = [pool(k, "x", n) for k, n in ((5, "a"), (9, "b"), (13, "c"))]
    nodes.append(node("Concat", "x a b c", "y", axis=1))
    proto = model(nodes, {"x": list(shape)}, {"y": None})
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    with InferenceSession(proto) as session:
        (actual,) = session.run(None, {"x": x})
    (wanted,) = expected(proto, {"x": x})
    assert np.array_equal(actual, wanted)
