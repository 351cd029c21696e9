"""Assemble: the kernel against numpy, in every width and way of access; what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.sentinels import guarded_arenas
from tests.small_models import floats
from vkconv.capabilities import DeviceCaps
from vkconv.device import open_device
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Graph, Node, TensorType, Value, constant
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import Walk
from vkconv.ops.parts import Part, Step
from vkconv.ops.registry import create, infer_types
from vkconv.passes import finish
from vkconv.plan import ConstantStore, make_plan

CHAINS: dict[str, tuple[Step, ...]] = {
    "none": (),
    "one": (Step(Activation.SIGMOID),),
    "numbers": (
        Step(Binary.MUL, None, (2.0,)),
        Step(Binary.SUB, None, (0.5,), swapped=True),
        Step(Activation.CLIP, None, (-1.0, 1.5)),
        Step(Binary.DIV, None, (3.0,)),
        Step(Binary.MAX, None, (-0.25,)),
    ),
    "itself": (Step(Binary.MUL), Step(Activation.LEAKY_RELU), Step(Binary.POW, None, (2.0,))),
    "tensors": (
        Step(Binary.ADD, 0),
        Step(Activation.LEAKY_RELU, None, (0.1, 0.0)),
        Step(Binary.SUB, 1, swapped=True),
        Step(Binary.MUL, 0),
        Step(Activation.TANH),
        Step(Binary.MIN, 1),
    ),
}  # fmt: skip


#: (n, c, w), channels left out, rows: widths of whole vec4s and of others, starts between them
SHAPES = [
    ((2, 5, 12), 0, False),
    ((1, 3, 8), 3, False),
    ((3, 5, 7), 1, False),
    ((2, 3, 16), 4, True),
    ((2, 2, 9), 1, True),
    ((1, 33, 260), 0, False),
]


def by_numpy(name: str, x: Array, a: Array, b: Array) -> Array:
    x, a, b = (v.astype(np.float64) for v in (x, a, b))
    if name == "one":
        return 1 / (1 + np.exp(-x))
    if name == "numbers":
        return np.maximum(np.clip(0.5 - 2 * x, -1, 1.5) / 3, -0.25)
    if name == "itself":
        return np.maximum(x * x, 0) ** 2
    if name == "tensors":
        v = x + a
        return np.minimum(np.tanh((b - np.where(v < 0, v * 0.1, v)) * a), b)
    return x


def transposed(
    shape: tuple[int, int, int], chain: str, skipped: int = 0, rows: bool = False
) -> tuple[Graph, dict[str, Array], Array]:
    """y (n, w, c) of x (n, c + skipped, w), or (n, c, w) with ``rows``: without its first channels;
    tensors a (c,) and b (w, 1). The graph, its inputs, and what y is by numpy."""
    n, c, w = shape
    x = floats(n, c + skipped, w, seed=1)
    a, b = floats(c, seed=2), floats(w, 1, seed=3)
    x_strides, start = ((c + skipped) * w, w, 1), skipped * w
    y_strides = (c * w, w, 1) if rows else (c * w, 1, c)
    # in the order of y
    order = (0, 1, 2) if rows else (0, 2, 1)
    strides: list[Sequence[int]] = [y_strides, x_strides]
    inputs: list[Value | None] = [Value("x", TensorType("float32", x.shape))]
    starts: tuple[int, ...] = (0, start)
    feeds = {"x": x}
    if chain == "tensors":
        strides += [(0, 1, 0), (0, 0, 1)]
        starts += (0, 0)
        # one that the model computes, one constant
        inputs += [Value("a", TensorType("float32", a.shape)), constant("b", b)]
        feeds["a"] = a
    walk = Walk(
        tuple(shape[d] for d in order), tuple(tuple(s[d] for d in order) for s in strides)
    ).merged()
    y_shape = (n, c, w) if rows else (n, w, c)
    part = Part(tuple(range(len(inputs))), walk, starts, CHAINS[chain])
    y = Value("y", TensorType("float32", y_shape))
    attributes = {"shape": y_shape, "parts": (part,)}
    node = Node("Assemble", inputs, [y], attributes, "assembly", "vkconv", 1)
    graph_inputs = [v for v in inputs if v is not None and not v.is_constant]
    graph = Graph("g", graph_inputs, [y], [node], {"": 17}, output_names=["y"])
    wanted = by_numpy(chain, x[:, skipped:], a[None, :, None], b.reshape(1, 1, w))
    return graph, feeds, wanted if rows else wanted.transpose(0, 2, 1)


def run(device: Any, graph: Graph, feeds: dict[str, Array]) -> tuple[Array, list[dict[str, str]]]:
    """The result, in memory that holds poison, and the variants dispatched."""
    finish(graph, device.caps)
    plan = make_plan(graph, device.caps, ConstantStore())
    with guarded_arenas() as guard:
        executable = device.prepare(plan)
        guard.poison()
        (y,) = executable.run(feeds)
        guard.check()
    return y, [dict(d.variant) for d in plan.dispatches]


@pytest.mark.parametrize("disabled", ["", "texel", "storage_texel"])
@pytest.mark.parametrize("chain", CHAINS)
def test_device(chain: str, disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    widths = set()
    device = open_device("auto")
    try:
        for shape, skipped, rows in SHAPES:
            graph, feeds, wanted = transposed(shape, chain, skipped, rows)
            node = graph.nodes[0]
            arrays = [feeds[v.name] if v.array is None else v.array for v in node.present_inputs]
            reference = create(node).reference(*arrays)
            assert np.allclose(reference, wanted, rtol=1e-5, atol=1e-6)
            y, variants = run(device, graph, feeds)
            assert np.allclose(y, wanted, rtol=2e-5, atol=2e-6), (shape, skipped, rows)
            widths |= {v["width"] for v in variants}
    finally:
        device.close()
    assert widths == {"one", "four"} | ({"spread"} if device.caps.kind == "cpu" else set())


@pytest.mark.parametrize("chain", ["one", "tensors"])
def test_the_order_of_a_gpu(chain: str) -> None:
    """Loops in the order of the result, four elements at once only where they lie together in
    both: planned for a GPU, run here."""
    caps = DeviceCaps(kind="integrated")
    device = open_device("auto")
    try:
        for rows, width in ((False, "one"), (True, "four")):
            graph, feeds, wanted = transposed((2, 3, 16), chain, 4, rows)
            finish(graph, caps)
            plan = make_plan(graph, caps, ConstantStore())
            assert [dict(d.variant)["width"] for d in plan.dispatches] == [width]
            (y,) = device.prepare(plan).run(feeds)
            assert np.allclose(y, wanted, rtol=2e-5, atol=2e-6)
    finally:
        device.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"starts": (0, 1)},
        {"starts": (-1, 0)},
        {"starts": (0,)},
        {"inputs": (1,)},
        {"walk": Walk((2, 12, 5), ((60, 5, 1), (60, 1, 13)))},
        {"walk": Walk((2, 12, 5), ((60, 5, 1), (60, 1, -1)))},
        {"walk": Walk((2, 0, 5), ((60, 5, 1), (60, 1, 12)))},
        {"walk": Walk((2, 12, 4), ((60, 5, 1), (60, 1, 12)))},
        {"walk": Walk((2,) * 5, ((16, 1, 2, 4, 8), (1, 2, 4, 8, 16)))},
        {"steps": (Step(Activation.RELU),) * 7},
        {"steps": (Step(Binary.ADD, 0),)},
        {"steps": (Step(Activation.CLIP, None, (0.0, 1.0)),) * 4},
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    graph, _, _ = transposed((2, 5, 12), "none")
    node = graph.nodes[0]
    (part,) = node.attributes["parts"]
    assert infer_types(create(node), node)
    node.attributes = {**node.attributes, "parts": (replace(part, **changes),)}
    with pytest.raises(InvalidModelError, match=r"Assemble 'assembly'.*part"):
        infer_types(create(node), node)


def test_a_model_cannot_have_it() -> None:
    """Its parts are no attribute that a file can hold."""
    node = transposed((2, 5, 12), "none")[0].nodes[0]
    node.attributes = {**node.attributes, "parts": (1, 2, 3)}
    with pytest.raises(InvalidModelError, match="attribute 'parts' should be"):
        create(node)
    node.attributes = {"shape": (0,), "parts": ()}
    node.inputs = []
    with pytest.raises(InvalidModelError, match="Assemble 'assembly': it has no parts"):
        infer_types(create(node), node)
