"""PermuteChannels against numpy, in both layouts, on whole and broken blocks of four."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import Case, check_device
from tests.sentinels import guarded_arenas
from tests.small_models import floats
from vkconv.capabilities import DeviceCaps
from vkconv.device import open_device
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Graph, Node, TensorType, Value, constant
from vkconv.ops.registry import create, infer_types
from vkconv.passes import finish
from vkconv.plan import ConstantStore, make_plan

ORDERS = [
    (0,),
    (6,),
    (3, 2, 1, 0),
    (0, 4, 1, 5, 2, 6, 3),
    (5, 5, 5),
    tuple(range(7)),
    (4, 5, 6),
    (6, 0, 6, 1, 6, 2, 6, 3, 6),
]


def graph_of(channels: tuple[int, ...], shape: tuple[int, ...], c4: bool, dtype: str) -> Graph:
    """x -> [1x1 convolution that keeps x ->] PermuteChannels -> y."""
    x = Value("x", TensorType(dtype, shape))
    nodes: list[Node] = []
    source = x
    if c4:
        ones = constant("ones", np.ones((shape[1], 1, *[1] * (len(shape) - 2)), np.float32))
        source = Value("c", x.type)
        attributes = {"group": shape[1]}
        nodes.append(Node("Conv", [x, ones], [source], attributes, "conv", "", 17))
    y = Value("y", TensorType(dtype, (shape[0], len(channels), *shape[2:])))
    nodes.append(Node("PermuteChannels", [source], [y], {"channels": channels}, "p", "vkconv", 1))
    return Graph("g", [x], [y], nodes, {"": 17}, output_names=["y"])


@pytest.mark.parametrize(
    "shape", [(1, 7, 5, 9), (3, 7, 1, 1), (2, 7, 33), (1, 7, 2, 3, 4)], ids=str
)
@pytest.mark.parametrize("layout", ["c4", "linear", "integers"])
def test_device(shape: tuple[int, ...], layout: str) -> None:
    dtype = "int32" if layout == "integers" else "float32"
    x: Array = (floats(*shape) * 100).astype(dtype)
    device = open_device("auto")
    try:
        for channels in ORDERS:
            graph = graph_of(channels, shape, layout == "c4", dtype)
            finish(graph, device.caps)
            with guarded_arenas() as guard:
                executable = device.prepare(make_plan(graph, device.caps, ConstantStore()))
                guard.poison()
                (y,) = executable.run({"x": x})
                guard.check()
            assert y.dtype == dtype and np.array_equal(y, x[:, list(channels)]), channels
    finally:
        device.close()


#: (channels of the inputs, channels of the result, rows copied in C4): what is not copied is
#: written in its place
SEVERAL = [
    ((7, 8), (6, 0, 1, -1, *range(7, 15), 2, 3, 4, 5), 2),
    ((7, 8), (6, 0, 1, -1, *range(7, 15)), 1),
    ((8, 7), (*range(8, 15), -1, 7, 2, 2, -1, -1, -1, -1, -1), 2),
    ((4, 8), (*range(4, 12), 0, 1, 2, 3), 0),
    ((4, 8), (*range(4, 12), -1, -1, -1, -1, 0, 1, 2, 3), 1),
    # in another order, in part, twice, across vec4s: copied
    ((5, 8), (5, 6, 7, 8, 10, 9, 11, 12, 4, 3, -1, 0), 3),
    ((5, 8), (5, 6, 7, 8, 4, 0, 1), 2),
    ((4, 4), (4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7), 2),
    ((6, 6), (6, 7, 8, 9, 10, 11, -1, -1, -1, -1, -1, 5), 1),
    ((3, 5, 4), (7, 6, 5, 4, 2, 0, -1, 1, 8, 9, 10, 11), 2),
]


@pytest.mark.parametrize(("widths", "channels", "rows"), SEVERAL, ids=str)
@pytest.mark.parametrize("layout", ["c4", "linear"])
def test_several_inputs(
    widths: tuple[int, ...], channels: tuple[int, ...], rows: int, layout: str
) -> None:
    graph = several(widths, channels, layout == "c4")
    feeds = {v.name: floats(*v.dims, seed=i) for i, v in enumerate(graph.inputs)}
    wanted = np.concatenate([*feeds.values(), np.zeros((2, 1, 5, 9), np.float32)], 1)[:, channels]
    assert np.array_equal(create(graph.nodes[-1]).reference(*feeds.values()), wanted)
    device = open_device("auto")
    try:
        finish(graph, device.caps)
        plan = make_plan(graph, device.caps, ConstantStore())
        copied = [d.push["rows"] for d in plan.dispatches if d.kernel == "permute_channels"]
        assert sum(copied) == (rows if layout == "c4" else len(channels))
        with guarded_arenas() as guard:
            executable = device.prepare(plan)
            guard.poison()
            (y,) = executable.run(feeds)
            guard.check()
        assert np.array_equal(y, wanted)
    finally:
        device.close()


def several(widths: tuple[int, ...], channels: tuple[int, ...], c4: bool) -> Graph:
    """Inputs of so many channels -> [1x1 convolutions that keep them ->] PermuteChannels -> y."""
    inputs = [Value(f"x{i}", TensorType("float32", (2, n, 5, 9))) for i, n in enumerate(widths)]
    nodes: list[Node] = []
    sources = inputs
    if c4:
        sources = []
        for x in inputs:
            ones = constant("ones", np.ones((x.dims[1], 1, 1, 1), np.float32))
            sources.append(Value(f"{x.name}/c", x.type))
            attributes = {"group": x.dims[1]}
            nodes.append(Node("Conv", [x, ones], sources[-1:], attributes, x.name, "", 17))
    y = Value("y", TensorType("float32", (2, len(channels), 5, 9)))
    nodes.append(Node("PermuteChannels", [*sources], [y], {"channels": channels}, "p", "vkconv", 1))
    return Graph("g", inputs, [y], nodes, {"": 17}, output_names=["y"])


def test_a_vec4_of_several_inputs_is_refused() -> None:
    node = several((5, 3), (0, 1, 2, 5), False).nodes[-1]
    with pytest.raises(InvalidModelError, match="channels 0 to 3 come from several inputs"):
        infer_types(create(node), node)


def test_inputs_that_do_not_go_together() -> None:
    graph = several((4, 4), (0, 1, 2, 3), False)
    graph.inputs[1].type = TensorType("float32", (2, 4, 5, 8))
    with pytest.raises(InvalidModelError, match="does not go with"):
        infer_types(create(graph.nodes[-1]), graph.nodes[-1])


def test_padding_lanes_are_zero() -> None:
    """A reader that sums whole vec4s must not see what is behind the last channel."""
    graph = graph_of((6, 1, 0, 2, 5), (1, 7, 4, 4), True, "float32")
    y = graph.outputs[0]
    weight = constant("w", np.ones((1, 5, 1, 1), np.float32))
    total = Value("t", TensorType("float32", (1, 1, 4, 4)))
    graph.nodes.append(Node("Conv", [y, weight], [total], {}, "sum", "", 17))
    graph.outputs, graph.output_names = [total], ["t"]
    device = open_device("auto")
    try:
        finish(graph, device.caps)
        with guarded_arenas() as guard:
            executable = device.prepare(make_plan(graph, device.caps, ConstantStore()))
            guard.poison()
            x = floats(1, 7, 4, 4)
            (found,) = executable.run({"x": x})
            guard.check()
        wanted = x[:, [6, 1, 0, 2, 5]].sum(1, keepdims=True, dtype=np.float64)
        assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)
    finally:
        device.close()


@pytest.mark.parametrize(
    ("channels", "is_view"),
    [((4, 5, 6, 7), True), ((0, 1, 2, 3), True), ((8, 9), True), ((4, 5), False), ((1, 2), False),
     ((3, 2, 1, 0), False)],
)  # fmt: skip
def test_whole_blocks_are_a_view(channels: tuple[int, ...], is_view: bool) -> None:
    caps = DeviceCaps()
    graph = graph_of(channels, (2, 10, 3, 5), True, "float32")
    finish(graph, caps)
    plan = make_plan(graph, caps, ConstantStore())
    assert ("permute_channels" not in [d.kernel for d in plan.dispatches]) == is_view


@pytest.mark.parametrize("channels", [(7,), (-2,)])
def test_channels_that_are_not_there(channels: tuple[int, ...]) -> None:
    node = graph_of(channels, (1, 7, 2, 2), False, "float32").nodes[-1]
    with pytest.raises(InvalidModelError, match="are not all in"):
        infer_types(create(node), node)


def test_reference() -> None:
    node = graph_of((2, 0, 2), (1, 3, 2, 2), False, "float32").nodes[-1]
    x = floats(1, 3, 2, 2)
    assert np.array_equal(create(node).reference(x), np.stack([x[:, 2], x[:, 0], x[:, 2]], 1))


#: for the test that every variant is dispatched by some case
CASES = [
    Case(
        "PermuteChannels",
        (x,),
        {"channels": [3, 2, 1, 0, 5, 6]},
        opset=1,
        domain="vkconv",
        layout=lay,
    )
    for x, lay in ((floats(1, 7, 5, 9), "c4"), (floats(1, 7, 5, 9), "linear"))
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    check_device(case)
