"""Shuffles between convolutions: the numbers stay, half of one copy is left, and what only looks
like them is not touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import evaluate, operators, rewritten
from tests.plan.planning import kernels, planned
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.ir import Array, Graph
from vkconv.passes import PASSES
from vkconv.passes.absorb_channel_order import absorb_channel_order

#: all that come before it
BEFORE = PASSES[: PASSES.index(absorb_channel_order)]


class Net:
    """A model of ShuffleNetV2's blocks, node by node. ``half``: channels of a half."""

    def __init__(self, half: int, batch: int = 1, size: tuple[int, int] = (5, 7)) -> None:
        self.half, self.batch, self.size = half, batch, size
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.inputs = {"x": [batch, 3, *size]}

    def conv(self, x: str, y: str, inputs: int, outputs: int, kernel: int = 1,
             relu: bool = True, bias: bool = True, **attributes: Any) -> str:  # fmt: skip
        group = attributes.get("group", 1)
        seed = len(self.constants)
        self.constants[f"w_{y}"] = floats(outputs, inputs // group, kernel, kernel, seed=seed)
        names = f"{x} w_{y}"
        if bias:
            self.constants[f"b_{y}"] = floats(outputs, seed=seed + 1)
            names += f" b_{y}"
        pads = [kernel // 2] * 4
        before = f"{y}_conv" if relu else y
        self.nodes.append(node("Conv", names, before, pads=pads, **attributes))
        if relu:
            self.nodes.append(node("Relu", before, y))
        return y

    def shuffle(self, parts: str, y: str, channels: int, halves: bool = True) -> list[str]:
        """Concat, shuffle and Split: the names of the halves, or of the whole."""
        h, w = self.size
        sizes = {
            "apart": [self.batch, 2, channels // 2, h, w],
            "back": [self.batch, channels, h, w],
        }
        for name, dims in sizes.items():
            self.constants[f"{name}_{y}"] = np.array(dims)
        self.nodes += [
            node("Concat", parts, f"c_{y}", axis=1),
            node("Reshape", f"c_{y} apart_{y}", f"a_{y}"),
            node("Transpose", f"a_{y}", f"t_{y}", perm=[0, 2, 1, 3, 4]),
            node("Reshape", f"t_{y} back_{y}", y),
        ]
        if not halves:
            return [y]
        self.nodes.append(node("Split", y, f"{y}_0 {y}_1", axis=1))
        return [f"{y}_0", f"{y}_1"]

    def first(self, y: str = "s1") -> list[str]:
        """A block that makes both halves, as those that halve the map do."""
        self.conv("x", "p", 3, self.half)
        self.conv("x", "q", 3, self.half, 3)
        return self.shuffle("p q", y, self.half * 2)

    def block(self, kept: str, given: str, y: str, halves: bool = True) -> list[str]:
        n = self.half
        self.conv(given, f"{y}_a", n, n)
        self.conv(f"{y}_a", f"{y}_d", n, n, 3, relu=False, group=n)
        self.conv(f"{y}_d", f"{y}_b", n, n)
        return self.shuffle(f"{kept} {y}_b", y, n * 2, halves)

    def model(self, outputs: str) -> Any:
        return model(self.nodes, self.inputs, dict.fromkeys(outputs.split()), self.constants)


def stage(half: int, batch: int = 1) -> Net:
    """Three blocks, and the next stage's two branches, as in the net."""
    net = Net(half, batch)
    halves = net.first()
    halves = net.block(*halves, "s2")
    halves = net.block(*halves, "s3")
    (whole,) = net.block(*halves, "s4", halves=False)
    net.conv(whole, "e", half * 2, half * 2, 3, relu=False, group=half * 2)
    net.conv("e", "y", half * 2, 6)
    net.conv(whole, "z", half * 2, 9)
    return net


def check(net: Net, outputs: str, touched: bool = True) -> Graph:
    """The pass changes the graph or not; with all passes, it means the same by numpy and on the
    device, in memory that holds poison."""
    proto = net.model(outputs)
    random = np.random.default_rng(3)
    feeds = {"x": random.standard_normal(net.inputs["x"]).astype(np.float32)}
    wanted = expected(proto, feeds)
    before = operators(rewritten(proto, *BEFORE))
    after = rewritten(proto, *BEFORE, absorb_channel_order)
    assert (operators(after) != before) == touched
    assert_same(evaluate(after.copy(), feeds), wanted)
    assert_same(evaluate(rewritten(proto), feeds), wanted)
    with guarded_arenas() as guard, InferenceSession(proto) as session:
        guard.poison()
        assert_same(session.run(None, feeds), wanted)
        guard.check()
        assert {p.where for p in session.placement} <= {"gpu", "fused", "folded"}
    return after


@pytest.mark.parametrize("half", [6, 8, 12, 29, 58])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_stage(half: int, batch: int) -> None:
    check(stage(half, batch), "y z")


def test_one_copy_of_half_is_left_of_each_block() -> None:
    made = planned(stage(58).model("y z"))
    assert kernels(made).count("permute_channels") == 4
    assert not {"channel_copy", "strided_copy"} & set(kernels(made))
    # 58 channels as 29 and 29, each in 8 vec4s
    copied = [d.push["rows"] for d in made.dispatches if d.kernel == "permute_channels"]
    assert copied == [16, 16, 16, 15]
    gpu = DeviceCaps(kind="integrated")
    assert kernels(planned(stage(58).model("y z"), gpu)).count("permute_channels") == 4


def test_names_of_the_model_stay() -> None:
    graph = check(stage(8), "y z")
    names = {name for n in graph.nodes for name in (n.name, *n.fused)}
    assert {n.name for n in stage(8).nodes} <= names
    assert len({n.name for n in graph.nodes}) == len(graph.nodes)


def test_a_convolution_without_bias() -> None:
    net = Net(8)
    net.conv("x", "p", 3, 8, bias=False)
    net.conv("x", "q", 3, 8, bias=False)
    kept, given = net.shuffle("p q", "s", 16)
    net.conv(given, "y", 8, 5, bias=False)
    net.conv(kept, "z", 8, 5)
    check(net, "y z")


def test_the_computed_half_first() -> None:
    net = Net(8)
    kept, given = net.first()
    net.conv(given, "g", 8, 8)
    a, b = net.shuffle(f"g {kept}", "s2", 16)
    net.conv(a, "y", 8, 5)
    net.conv(b, "z", 8, 5)
    check(net, "y z")


def test_readers_that_need_the_order_get_it() -> None:
    """An addition, an output of the model, a convolution in groups, one with computed weights."""
    net = Net(8)
    kept, given = net.first()
    net.nodes.append(node("Add", f"{kept} {given}", "y"))
    net.conv(given, "z", 8, 8, group=2)
    net.inputs["v"] = [4, 8, 1, 1]
    net.nodes += [node("Relu", "v", "w"), node("Conv", f"{kept} w", "u")]
    proto = net.model(f"y z u {given}")
    feeds = {"x": floats(1, 3, 5, 7, seed=4), "v": floats(4, 8, 1, 1, seed=5)}
    graph = rewritten(proto, *BEFORE, absorb_channel_order)
    assert any(n.name.endswith("/in_order") for n in graph.nodes)
    assert_same(evaluate(graph.copy(), feeds), expected(proto, feeds))
    with InferenceSession(proto) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))


def test_a_depthwise_convolution_keeps_the_order_for_others() -> None:
    net = Net(16)
    kept, given = net.first()
    net.conv(given, "d", 16, 16, 3, group=16)
    net.nodes.append(node("Mul", f"d {kept}", "y"))
    check(net, "y")


def test_an_activation_that_is_not_zero_at_zero() -> None:
    """The channels that only pad hold f(0); the weights of the readers are zero there."""
    net = Net(29)
    net.conv("x", "p", 3, 29)
    net.conv("x", "q_before", 3, 29, relu=False)
    net.nodes.append(node("Sigmoid", "q_before", "q"))
    kept, given = net.shuffle("p q", "s", 58)
    net.conv(given, "d_before", 29, 29, 3, relu=False, group=29)
    net.nodes.append(node("HardSigmoid", "d_before", "d"))
    net.conv("d", "y", 29, 5)
    net.nodes.append(node("Neg", kept, "z"))
    check(net, "y z")


# --- what is left alone ---------------------------------------------------------------------------


def test_a_part_that_others_read() -> None:
    net = Net(8)
    net.conv("x", "p", 3, 8)
    net.conv("x", "q", 3, 8)
    net.nodes += [node("Neg", "p", "u"), node("Neg", "q", "v")]
    a, b = net.shuffle("p q", "s", 16)
    net.conv(a, "y", 8, 5)
    net.conv(b, "z", 8, 5)
    check(net, "y z u v", touched=False)


def test_no_convolution_to_write_in_order() -> None:
    net = Net(8)
    net.conv("x", "p", 3, 8)
    net.nodes += [node("MaxPool", "p", "m", kernel_shape=[3, 3], pads=[1] * 4),
                  node("AveragePool", "p", "q", kernel_shape=[3, 3], pads=[1] * 4)]  # fmt: skip
    a, b = net.shuffle("m q", "s", 16)
    net.conv(a, "y", 8, 5)
    net.conv(b, "z", 8, 5)
    check(net, "y z", touched=False)


def test_the_joined_value_is_read_too() -> None:
    net = Net(8)
    a, b = net.first()
    net.conv(a, "y", 8, 5)
    net.conv(b, "z", 8, 5)
    net.nodes.append(node("Neg", "c_s1", "u"))
    check(net, "y z u", touched=False)


def test_narrow_maps_would_be_mostly_padding() -> None:
    net = Net(12)  # in halves of six, which take four vec4s where twelve take three
    a, b = net.first()
    net.conv(a, "y", 12, 5)
    net.conv(b, "z", 12, 5)
    check(net, "y z", touched=False)


def test_open_shapes_wait() -> None:
    net = stage(8)
    net.inputs["x"] = ["n", 3, 5, 7]
    graph = rewritten(net.model("y z"), *BEFORE, absorb_channel_order)
    assert "PermuteChannels+" not in operators(graph)
