"""A convolution that only a conversion reads stores its result in LINEAR itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.plan.planning import CPU, planned
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, Plan
from vkconv.ir import Array

CONSTANTS: dict[str, Array] = {
    "w": floats(10, 6, 1, 1),
    "w3": floats(10, 6, 3, 3, seed=1),
    "w_wide": floats(66, 64, 3, 3, seed=1) / 24,
    "w_row": floats(10, 6, 3, seed=2),
    "w_volume": floats(10, 6, 1, 3, 3, seed=2),
    "w_depthwise": floats(6, 1, 3, 3),
    "w_groups": floats(9, 2, 1, 1),
    "w_back": floats(6, 10, 2, 2),
    "b": floats(10, seed=4),
    "k": floats(4, 10, 1, 1, seed=5),
    "rows": np.array([0, 2, 5, -1]),
}


def stored(plan: Plan) -> list[Dispatch]:
    return [d for d in plan.dispatches if ("result", "linear") in d.variant]


def check(
    nodes: list[Any],
    x: list[int],
    stores: int,
    conversions: int,
    outputs: str = "y",
    caps: DeviceCaps = CPU,
) -> list[str]:
    """The plan's kernels: so many dispatches store in LINEAR, so many convert to it; on the device
    the model means the same, in memory that holds poison."""
    proto = model(nodes, {"x": x}, dict.fromkeys(outputs.split()), CONSTANTS)
    plan = planned(proto, caps)
    made = [d.kernel for d in plan.dispatches]
    assert (len(stored(plan)), made.count("to_linear")) == (stores, conversions), made
    feeds = {"x": floats(*x, seed=3)}
    with guarded_arenas() as guard, InferenceSession(proto) as session:
        guard.poison()
        assert_same(session.run(None, feeds), expected(proto, feeds))
        guard.check()
    return made


@pytest.mark.parametrize("batch", [1, 3])
def test_an_output_of_the_model(batch: int) -> None:
    made = check([node("Conv", "x w b", "y")], [batch, 6, 5, 7], 1, 0)
    assert made == ["to_c4", "conv2d_1x1_subgroup"]


def test_what_follows_in_linear() -> None:
    """As a detector's head does: 2 anchors of 5 numbers."""
    nodes = [
        node("Conv", "x w b", "c"),
        node("Reshape", "c rows", "r"),
        node("Transpose", "r", "y", perm=[0, 1, 3, 2]),
    ]
    check(nodes, [2, 6, 5, 7], 1, 0)


def test_an_epilogue() -> None:
    nodes = [
        node("Conv", "x w b", "c"),
        node("Conv", "x w3 b", "d", pads=[1, 1, 1, 1]),
        node("Add", "c d", "e"),
        node("Sigmoid", "e", "y"),
    ]
    check(nodes, [2, 6, 5, 7], 1, 0)


@pytest.mark.parametrize("size", [(19, 17), (26, 23)])
def test_winograd(size: tuple[int, int]) -> None:
    nodes = [node("Conv", "x w_wide", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")]
    assert check(nodes, [2, 64, *size], 1, 0)[-1] == "winograd_output"


def test_joined_maps_are_written_where_they_lie() -> None:
    nodes = [
        node("Conv", "x w b", "c"),
        node("Conv", "x w3", "d", pads=[1, 1, 1, 1]),
        node("Reshape", "c rows", "r"),
        node("Reshape", "d rows", "s"),
        node("Concat", "r s", "y", axis=1),
    ]
    made = check(nodes, [1, 6, 5, 7], 2, 0)
    assert made == ["to_c4", "conv2d_1x1_subgroup", "conv2d"]


def test_other_ranks() -> None:
    check([node("Conv", "x w_row b", "y", pads=[1, 1])], [2, 6, 9], 1, 0)
    check([node("Conv", "x w_volume b", "y")], [2, 6, 2, 5, 7], 0, 1)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", "x w_depthwise", "y", group=6, pads=[1, 1, 1, 1])],
        [node("Conv", "x w_groups", "y", group=3)],
    ],
    ids=["depthwise", "groups of odd channels"],
)
def test_kernels_that_store_c4_alone_are_followed_by_a_conversion(nodes: list[Any]) -> None:
    check(nodes, [2, 6, 5, 7], 0, 1)


def test_a_transposed_convolution_is_left_alone() -> None:
    check([node("ConvTranspose", "x w_back", "y", strides=[2, 2])], [2, 6, 5, 7], 0, 1)


def test_another_reader_wants_c4() -> None:
    nodes = [node("Conv", "x w b", "y"), node("Conv", "y k", "z")]
    check(nodes, [2, 6, 5, 7], 1, 1, outputs="y z")


def test_what_is_no_convolution_is_converted() -> None:
    nodes = [node("Conv", "x w b", "c"), node("MaxPool", "c", "y", kernel_shape=[2, 2])]
    check(nodes, [2, 6, 5, 7], 0, 1)


def test_an_output_asked_for_twice() -> None:
    nodes = [node("Conv", "x w b", "c"), node("Identity", "c", "y"), node("Identity", "c", "z")]
    check(nodes, [1, 6, 5, 7], 1, 0, outputs="y z")


@pytest.mark.parametrize("kind", ["integrated", "discrete"])
def test_the_kernels_of_gpus(kind: str) -> None:
    caps = DeviceCaps(kind=kind, max_workgroup_invocations=1024, max_workgroup_size=(1024,) * 3)
    nodes = [node("Conv", "x w b", "c"), node("Conv", "x w3 b", "d")]
    proto = model(nodes, {"x": [1, 6, 40, 40]}, {"c": None, "d": None}, CONSTANTS)
    assert len(stored(planned(proto, caps))) == 2
