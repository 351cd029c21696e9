"""Convolutions side by side become one where all that follows stays a view, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.rewriting import check as check_rewritten
from tests.passes.rewriting import rewritten
from tests.plan.planning import kernels, planned
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.ir import Array, Graph, Node
from vkconv.passes import PASSES
from vkconv.passes.merge_parallel_convolutions import merge_parallel_convolutions

#: all that come before it
BEFORE = PASSES[: PASSES.index(merge_parallel_convolutions)]
X = {"x": [2, 6, 5, 7]}
COPIES = {"strided_copy", "channel_copy", "permute_channels"}


def conv(
    constants: dict[str, Array], x: str, y: str, outputs: int, inputs: int = 6, *,
    kernel: int = 1, bias: bool = True, **attributes: Any,
) -> Any:  # fmt: skip
    seed = len(constants)
    group = attributes.get("group", 1)
    constants[f"w_{y}"] = floats(outputs, inputs // group, kernel, kernel, seed=seed)
    names = f"{x} w_{y}"
    if bias:
        constants[f"b_{y}"] = floats(outputs, seed=seed + 1)
        names += f" b_{y}"
    return node("Conv", names, y, pads=attributes.pop("pads", [kernel // 2] * 4), **attributes)


def check(
    nodes: list[Any], constants: dict[str, Array], convolutions: int, outputs: str = "y",
    inputs: Any = X, copies: int = 0,
) -> Graph:  # fmt: skip
    """So many convolutions and copies are left, and the model means the same: by numpy, and on the
    device in memory that holds poison."""
    proto = model(nodes, inputs, dict.fromkeys(outputs.split()), constants)
    graph = rewritten(proto, *BEFORE, merge_parallel_convolutions)
    assert sum(n.op_type == "Conv" for n in graph.nodes) == convolutions
    check_rewritten(proto, [n.op_type + "+" * bool(n.domain) for n in graph.nodes],
                    *BEFORE, merge_parallel_convolutions)  # fmt: skip
    made = kernels(planned(proto))
    assert sum(k in COPIES for k in made) == copies, made
    feeds = {name: floats(*shape, seed=7) for name, shape in inputs.items()}
    wanted = expected(proto, feeds)
    with guarded_arenas() as guard, InferenceSession(proto) as session:
        guard.poison()
        assert_same(session.run(None, feeds), wanted)
        guard.check()
    names = {name for n in graph.nodes for name in (n.name, *n.fused)}
    assert {n.name for n in nodes} <= names
    return graph


def merged(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op_type == "Conv" and "/joined" in n.outputs[0].name]


def elan(constants: dict[str, Array], order: str, y: str = "y") -> list[Any]:
    """x -> a, b side by side; c and d behind b; all in one Concat, in that order."""
    return [
        conv(constants, "x", "a_before", 8),
        node("Relu", "a_before", "a"),
        conv(constants, "x", "b_before", 12),
        node("Relu", "b_before", "b"),
        conv(constants, "b", "c", 4, 12, kernel=3),
        conv(constants, "c", "d", 4, 4, kernel=3),
        node("Concat", order, y, axis=1),
    ]


@pytest.mark.parametrize("order", ["a b c d", "d c b a", "d a b c"])
def test_an_elan_block(order: str) -> None:
    constants: dict[str, Array] = {}
    graph = check(elan(constants, order), constants, 3)
    (one,) = merged(graph)
    assert one.inputs[1] is not None and one.inputs[1].dims == (20, 6, 1, 1)
    assert one.name == "Conv:a_before"
    assert set(one.fused) == {"Relu:a", "Conv:b_before", "Relu:b"}
    (concat,) = [n for n in graph.nodes if n.op_type == "Concat"]
    assert len(concat.inputs) == 3


@pytest.mark.parametrize("order", ["a c b d", "c a d b"])
def test_parts_that_do_not_follow_each_other_stay(order: str) -> None:
    constants: dict[str, Array] = {}
    check(elan(constants, order), constants, 4)


@pytest.mark.parametrize("order", ["d a", "a d"])
def test_a_csp_block(order: str) -> None:
    """Only a belongs to the Concat: b lies beside what that gives, which becomes a view."""
    constants: dict[str, Array] = {}
    nodes = [*elan(constants, order, "e"), conv(constants, "e", "y", 5, 12)]
    graph = check(nodes, constants, 4)
    assert len(merged(graph)) == 1
    assert sum(n.op_type == "Split" for n in graph.nodes) == 2


def test_a_part_in_the_middle_of_a_concat_stays() -> None:
    constants: dict[str, Array] = {}
    check(elan(constants, "c a d"), constants, 4)


def test_a_view_would_be_copied_into_the_next_concat() -> None:
    constants: dict[str, Array] = {}
    nodes = [*elan(constants, "d a", "e"), node("Concat", "e c", "y", axis=1)]
    check(nodes, constants, 4)
    # without anything beside it there is no such view
    constants = {}
    nodes = [*elan(constants, "d a b", "e"), node("Concat", "e c", "y", axis=1)]
    check(nodes, constants, 3)


def test_heads_side_by_side() -> None:
    """What is no multiple of four comes last, once."""
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "a", 5, kernel=3), conv(constants, "x", "b", 4, kernel=3),
             conv(constants, "x", "c", 8, kernel=3), node("Sigmoid", "b", "s"),
             node("GlobalMaxPool", "a", "n")]  # fmt: skip
    # Sigmoid is of b only, so b is another convolution
    graph = check(nodes, constants, 2, "n s c")
    (one,) = merged(graph)
    assert one.inputs[1] is not None and np.array_equal(
        one.inputs[1].array, np.concatenate([constants["w_c"], constants["w_a"]])
    )


def test_two_odd_widths_stay() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "y", 5), conv(constants, "x", "z", 3)]
    check(nodes, constants, 2, "y z")


def test_winograd_reads_its_input_once() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", y, 32, 32, kernel=3) for y in "yz"]
    inputs = {"x": [1, 32, 28, 28]}
    check(nodes, constants, 1, "y z", inputs)
    proto = model(nodes, inputs, {"y": None, "z": None}, constants)
    assert kernels(planned(proto)).count("winograd_input") == 1


def test_one_of_them_has_no_bias() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "y", 8), conv(constants, "x", "z", 8, bias=False)]
    check(nodes, constants, 1, "y z")
    constants = {}
    nodes = [conv(constants, "x", "y", 8, bias=False), conv(constants, "x", "z", 8, bias=False)]
    graph = check(nodes, constants, 1, "y z")
    assert len(merged(graph)[0].inputs) == 2


def test_weights_used_twice_are_joined_once() -> None:
    constants: dict[str, Array] = {}
    first = [conv(constants, "x", "a", 8), conv(constants, "x", "b", 8)]
    second = [node("Conv", "u w_a b_a", "c", pads=[0] * 4),
              node("Conv", "u w_b b_b", "d", pads=[0] * 4)]  # fmt: skip
    graph = check([*first, *second], constants, 2, "a b c d", {**X, "u": [2, 6, 3, 4]})
    one, two = merged(graph)
    assert one.inputs[1] is two.inputs[1] and one.inputs[2] is two.inputs[2]


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": 3},
        {"strides": [2, 2]},
        {"kernel": 3, "dilations": [2, 2], "pads": [2] * 4},
        {"group": 2},
    ],
    ids=str,
)
def test_what_differs_stays(change: dict[str, Any]) -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "y", 8), conv(constants, "x", "z", 8, **change)]
    check(nodes, constants, 2, "y z")


def test_groups_stay() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "y", 8, group=2), conv(constants, "x", "z", 8, group=2)]
    check(nodes, constants, 2, "y z")


@pytest.mark.parametrize("behind", ["Relu", "Add"])
def test_what_stands_behind_one_of_them(behind: str) -> None:
    """An activation or a residual of one alone."""
    constants: dict[str, Array] = {}
    other = "r" if behind == "Relu" else "r x8"
    nodes = [node("Concat", "x x2", "x8", axis=1), conv(constants, "x", "r", 8),
             conv(constants, "x", "z", 8), node(behind, other, "y")]  # fmt: skip
    inputs = {**X, "x2": [2, 2, 5, 7]}
    check(nodes, constants, 2, "y z x8", inputs, copies=2)


def test_slopes_differ() -> None:
    constants: dict[str, Array] = {}
    nodes = [
        conv(constants, "x", "a", 8),
        conv(constants, "x", "b", 8),
        node("LeakyRelu", "a", "y", alpha=0.1),
        node("LeakyRelu", "b", "z", alpha=0.2),
    ]
    check(nodes, constants, 2, "y z")
    same = [*nodes[:3], node("LeakyRelu", "b", "z", alpha=0.1)]
    check(same, constants, 1, "y z")


def test_computed_weights_stay() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "y", 8), node("Relu", "v", "w"), node("Conv", "x w", "z")]
    check(nodes, constants, 2, "y z", {**X, "v": [8, 6, 1, 1]})


def test_a_value_in_two_concats_stays() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "a", 8), conv(constants, "x", "b", 8),
             node("Concat", "a b", "y", axis=1), node("Concat", "b a", "z", axis=1)]  # fmt: skip
    proto = model(nodes, X, {"y": None, "z": None}, constants)
    graph = rewritten(proto, *BEFORE, merge_parallel_convolutions)
    assert not merged(graph)


def test_a_concat_along_another_axis_stays() -> None:
    constants: dict[str, Array] = {}
    nodes = [conv(constants, "x", "a", 8), conv(constants, "x", "b", 8),
             node("Concat", "a b", "y", axis=2)]  # fmt: skip
    check(nodes, constants, 2, copies=2)


def test_open_shapes() -> None:
    """Batch and size need not be known; an addition that could become a residual makes it wait."""
    constants: dict[str, Array] = {}
    inputs = {"x": ["n", 6, "h", "w"]}
    proto = model(elan(constants, "d c b a"), inputs, {"y": None}, constants)
    graph = rewritten(proto, *BEFORE, merge_parallel_convolutions)
    assert len(merged(graph)) == 1
    feeds = {"x": floats(3, 6, 4, 9)}
    with InferenceSession(proto) as session:
        for shape in ((3, 6, 4, 9), (1, 6, 8, 5)):
            feeds = {"x": floats(*shape)}
            assert_same(session.run(None, feeds), expected(proto, feeds))
    constants = {}
    nodes = [conv(constants, "x", "a", 6), conv(constants, "x", "z", 8), node("Add", "a v", "y")]
    more = {**inputs, "v": inputs["x"]}
    proto = model(nodes, more, {"y": None, "z": None}, constants)
    assert not merged(rewritten(proto, *BEFORE, merge_parallel_convolutions))


def test_on_gpus_too() -> None:
    constants: dict[str, Array] = {}
    proto = model(elan(constants, "d c b a"), X, {"y": None}, constants)
    made = planned(proto, DeviceCaps(kind="integrated"))
    assert len([k for k in kernels(made) if k.startswith("conv")]) == 3
    assert not COPIES & set(kernels(made))
