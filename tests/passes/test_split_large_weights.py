"""Convolutions and products with weights beyond maxStorageBufferRange: cut up, and still right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import evaluate, operators, rewritten
from tests.plan.planning import CPU, lowered
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch
from vkconv.errors import UnsupportedModelError
from vkconv.ir import Array
from vkconv.passes.split_large_weights import split_large_weights
from vkconv.plan import ConstantStore, make_plan

LIMIT = 640_000
SMALL = DeviceCaps(kind="integrated", max_storage_buffer_range=LIMIT)
#: texels of a buffer: more than the maps of these nets have, and fewer than their weights
TEXELS = 20_000
READING_TEXELS = DeviceCaps(kind="cpu", max_texel_buffer_elements=TEXELS, uniform_texel=True,
                            unrolls_loops=False)  # fmt: skip
CONSTANTS = {
    "w": floats(192, 96, 3, 3, scale=0.05),
    "b": floats(192),
    "v": floats(200, 192, 5, 5, scale=0.02),
    "t": floats(96, 300, 3, 3, scale=0.05),
    "tb": floats(300),
    "m": floats(700, 500, scale=0.05),
    "u": floats(500, 500, 1, 1, scale=0.05),
}
X = {"x": [2, 96, 9, 11]}
NETS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "conv": ([node("Conv", "x w b", "y", pads=[1, 1, 1, 1])], X),
    "fused": (
        [node("Conv", "x w b", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"),
         node("Conv", "r v", "c", pads=[2, 2, 2, 2]), node("Conv", "x w", "d", pads=[1, 1, 1, 1]),
         node("Add", "d r", "e"), node("Relu", "e", "y")], X),
    "transposed": ([node("ConvTranspose", "x t tb", "y", strides=[2, 2])], {"x": [1, 96, 9, 11]}),
    "scaled": (
        [node("GlobalAveragePool", "x", "g"), node("Sigmoid", "g", "s"), node("Mul", "x s", "p"),
         node("Conv", "p u", "y")], {"x": [2, 500, 5, 3]}),
    "product": ([node("Gemm", "x m", "y")], {"x": [3, 700]}),
}  # fmt: skip


def feeds(inputs: dict[str, Any]) -> dict[str, Array]:
    return {name: floats(*shape, seed=3) for name, shape in inputs.items()}


@pytest.mark.parametrize("name", ["conv", "fused", "transposed", "scaled"])
def test_parts_mean_the_same(name: str) -> None:
    nodes, inputs = NETS[name]
    proto = model(nodes, inputs, {"y": None}, CONSTANTS)
    graph = rewritten(proto)
    before = operators(graph)
    split_large_weights(graph, SMALL)
    assert len(graph.nodes) > len(before) and "Concat" in operators(graph)
    assert_same(evaluate(graph.copy(), feeds(inputs)), expected(proto, feeds(inputs)))


def test_parts_of_a_deformable_convolution_with_a_residual() -> None:
    nodes = [
        node("DeformConv", "x w o b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Add", "r z", "y"),
    ]
    inputs = X | {"o": [2, 18, 9, 11], "z": [2, 192, 9, 11]}
    proto = model(nodes, inputs, {"y": None}, CONSTANTS, opset=19)
    graph = rewritten(proto)
    assert operators(graph) == ["DeformConv+"]
    split_large_weights(graph, SMALL)
    parts = [n for n in graph.nodes if n.op_type == "DeformConv"]
    assert len(parts) > 1 and all(n.inputs[5].dims[1] < 192 for n in parts)
    (found,) = evaluate(graph, feeds(inputs))
    (plain,) = evaluate(rewritten(proto, lambda _: None), feeds(inputs))
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["cpu", "integrated"])
@pytest.mark.parametrize("name", list(NETS))
def test_no_buffer_exceeds_the_limit(name: str, kind: Any) -> None:
    nodes, inputs = NETS[name]
    proto = model(nodes, inputs, {"y": None}, CONSTANTS)
    caps = DeviceCaps(kind=kind, max_storage_buffer_range=LIMIT)
    plan = make_plan(lowered(proto, caps), caps, ConstantStore())
    largest = max(r.size for d in plan.dispatches for r in d.buffers.values())
    assert LIMIT / 5 < largest <= LIMIT
    copies = [d.kernel for d in plan.dispatches if "copy" in d.kernel or "permute" in d.kernel]
    assert not copies  # parts are written in place, and residuals read there


@pytest.mark.parametrize(
    ("limit", "disabled"),
    [
        (f"max_storage_buffer_range={LIMIT}", ""),
        (f"max_storage_buffer_range={LIMIT}", "texel"),
        (f"max_texel_buffer_elements={TEXELS}", ""),
        (f"max_texel_buffer_elements={TEXELS}", "unrolling"),
    ],
)
@pytest.mark.parametrize("name", list(NETS))
def test_on_the_device(
    name: str, limit: str, disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, inputs = NETS[name]
    proto = model(nodes, inputs, {"y": None}, CONSTANTS)
    monkeypatch.setenv("VKCONV_LIMITS", limit)
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    with InferenceSession(proto, strict=True) as session:
        session.run(None, {n: x + 1 for n, x in feeds(inputs).items()})
        assert_same(session.run(None, feeds(inputs)), expected(proto, feeds(inputs)))
        where = {p.node: p.where for p in session.placement}
    assert set(where.values()) <= {"gpu", "fused", "folded"} and len(where) == len(nodes)


@pytest.mark.parametrize("name", ["conv", "fused", "transposed", "scaled"])
def test_weights_that_are_read_as_texels_are_as_few_as_allowed(name: str) -> None:
    nodes, inputs = NETS[name]
    proto = model(nodes, inputs, {"y": None}, CONSTANTS)
    plan = make_plan(lowered(proto, READING_TEXELS), READING_TEXELS, ConstantStore())
    found = [d for d in plan.dispatches if "weights" in d.buffers]
    assert {dict(d.variant)["access"] for d in found} <= {"uniform_texel", "weights_texel"}
    assert max(d.buffers["weights"].size for d in found) <= TEXELS * 16
    # a GPU reads storage buffers, and these are as large as they may be
    gpu = DeviceCaps(kind="integrated", max_texel_buffer_elements=TEXELS)
    plan = make_plan(lowered(proto, gpu), gpu, ConstantStore())
    assert max(d.buffers["weights"].size for d in plan.dispatches if "weights" in d.buffers) > (
        TEXELS * 16
    )


def test_maps_of_more_texels_leave_the_weights_theirs() -> None:
    proto = model([node("Conv", "x u", "y")], {"x": [1, 500, 5, 5]}, {"y": None}, CONSTANTS)
    for texels, access in ((3125, "uniform_texel"), (3124, "weights_texel"), (2015, "ssbo")):
        caps = DeviceCaps(kind="cpu", max_texel_buffer_elements=texels, uniform_texel=True,
                          unrolls_loops=False)  # fmt: skip
        plan = make_plan(lowered(proto, caps), caps, ConstantStore())
        kinds = {dict(d.variant)["access"] for d in plan.dispatches if d.kernel == "conv2d_8x4"}
        assert kinds == {access}


def test_weights_that_fit_and_groups_are_left_alone() -> None:
    nodes, inputs = NETS["conv"]
    graph = rewritten(model(nodes, inputs, {"y": None}, CONSTANTS))
    split_large_weights(graph, CPU)
    assert operators(graph) == ["Conv"]
    split_large_weights(graph, DeviceCaps(kind="reference", host_only=True))
    assert operators(graph) == ["Conv"]
    grouped = rewritten(model([node("Conv", "x w", "y", group=2)], {"x": [1, 192, 5, 5]},
                              {"y": None}, CONSTANTS))  # fmt: skip
    split_large_weights(grouped, SMALL)
    assert operators(grouped) == ["Conv"]


def test_a_table_that_no_buffer_holds_is_read_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model([node("Gather", "table i", "e"), node("Relu", "e", "y")],
                  {"i": ("int64", [3])}, {"y": None}, {"table": floats(3000, 100)})  # fmt: skip
    monkeypatch.setenv("VKCONV_LIMITS", f"max_storage_buffer_range={LIMIT}")
    i = {"i": np.array([2999, 0, 7])}
    with InferenceSession(proto) as session:
        assert_same(session.run(None, i), expected(proto, i))
        placed = {p.node: p for p in session.placement}
    assert placed["Gather:e"].where == "host" and "'table' exceeds" in placed["Gather:e"].detail
    assert placed["Relu:y"].where == "gpu"
    with pytest.raises(UnsupportedModelError, match="maxStorageBufferRange of 640000 bytes"):
        InferenceSession(proto, strict=True)


def test_dispatches_of_parts_do_not_wait_for_each_other() -> None:
    nodes, inputs = NETS["conv"]
    plan = make_plan(lowered(model(nodes, inputs, {"y": None}, CONSTANTS), SMALL), SMALL,
                     ConstantStore())  # fmt: skip
    convs = [d for d in plan.steps if isinstance(d, Dispatch) and d.kernel == "conv2d"]
    assert len(convs) > 2 and [d.barrier for d in convs] == [True, *[False] * (len(convs) - 1)]
