"""What cuts and joins at a model's end, in C4 only by copies, is done in LINEAR; the rest stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.plan.planning import CPU, kernels, lowered, planned
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession, passes
from vkconv.ir import Array

COPIES = ("channel_copy", "strided_copy", "permute_channels")
CONSTANTS: dict[str, Array] = {
    "w4": floats(4, 6, 1, 1),
    "w8": floats(8, 6, 1, 1),
    "w7": floats(7, 6, 1, 1),
    "b7": floats(7),
    "b8": floats(8),
    "w10_3": floats(10, 6, 1),
    "w10_5": floats(10, 6, 1, 1, 1),
    "k": floats(3, 11, 1, 1),
    "sizes": np.array([3, 7]),
    "seven": floats(7),
    "ones": floats(1, 3, 5, 7),
    "half": np.float32(0.5),
    "grid": floats(2, 5, 7),
    "rows": np.array([0, -1, 35]),
}


@pytest.fixture(autouse=True)
def _conversions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted here, also those that a convolution's store or an assembly would take
    in."""
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    monkeypatch.setattr(passes, "store_linear", lambda _: None)
    monkeypatch.setattr(passes, "assemble_parts", lambda *_: None)


def check(nodes: list[Any], copies: int, conversions: int, *, batch: int = 1,
          inputs: Any = None, outputs: str = "y") -> list[str]:  # fmt: skip
    """The plan's kernels: so many copies and conversions; on the device the model means the same,
    in memory that holds poison."""
    inputs = inputs or {"x": [batch, 6, 5, 7]}
    proto = model(nodes, inputs, dict.fromkeys(outputs.split()), CONSTANTS)
    made = kernels(planned(proto))
    assert sum(k in COPIES for k in made) == copies, made
    assert sum(k in ("to_c4", "to_linear") for k in made) == conversions, made
    feeds = {name: floats(*shape, seed=3) for name, shape in inputs.items()}
    with guarded_arenas() as guard, InferenceSession(proto) as session:
        guard.poison()
        assert_same(session.run(None, feeds), expected(proto, feeds))
        guard.check()
    return made


def decoding(y: str = "z") -> list[Any]:
    """A head of a detector without anchors: distances to centre and size, beside the classes."""
    return [
        node("Conv", "x w4", "d"),
        node("Conv", "x w7", "c"),
        node("Split", "d", "low high", axis=1),
        node("Sub", "high low", "s"),
        node("Mul", "s half", "m"),
        node("Add", "grid m", "centre"),
        node("Add", "low high", "size"),
        node("Sigmoid", "c", "p"),
        node("Concat", "centre size p", y, axis=1),
    ]


def test_a_head_is_decoded_in_linear() -> None:
    behind = [node("Reshape", "z rows", "r"), node("Transpose", "r", "y", perm=[0, 2, 1])]
    # the input; distances and classes, which are written where they are joined; the transposition
    check([*decoding(), *behind], copies=1, conversions=3)


def test_an_output_of_the_model_is_linear() -> None:
    check(decoding("y"), copies=0, conversions=3)


def test_batches_lie_apart_in_linear() -> None:
    check(decoding("y"), copies=4, conversions=2, batch=2)


def test_a_convolution_behind_it_wants_c4() -> None:
    nodes = [*decoding(), node("Conv", "z k", "y")]
    made = check(nodes, copies=4, conversions=2)
    assert made[-1] == "to_linear"


def test_one_reader_of_several_wants_c4() -> None:
    nodes = [*decoding(), node("Conv", "z k", "y"), node("Reshape", "z rows", "r")]
    check(nodes, copies=4, conversions=3, outputs="y r")


def test_whole_vec4s_stay_in_c4() -> None:
    nodes = [node("Conv", "x w4", "a"), node("Conv", "x w8", "b"), node("Relu", "b", "r"),
             node("Concat", "a r", "y", axis=1)]  # fmt: skip
    check(nodes, copies=0, conversions=2)


def test_one_copy_is_less_than_many_conversions() -> None:
    """Only the last of four parts is copied in C4."""
    nodes = [
        node("Conv", "x w8", "a"), node("Conv", "x w8 b8", "b"), node("Conv", "x w4", "c"),
        node("Conv", "x w7", "d"), node("Conv", "x w7 b7", "e"),
        node("Abs", "a", "f"), node("Sin", "b", "g"), node("Abs", "c", "h"), node("Sin", "d", "i"),
        node("Cos", "e", "j"), node("Concat", "f g h i j", "y", axis=1),
    ]  # fmt: skip
    check(nodes, copies=2, conversions=2)


def test_constants_are_joined_too() -> None:
    """A constant has no layout, and may have any number of dimensions."""
    nodes = [
        node("Conv", "x w4", "a"),
        node("Sin", "a", "b"),
        node("Mul", "seven b", "c"),
        node("Concat", "ones c", "y", axis=1),
    ]
    check(nodes, copies=1, conversions=2)


def test_an_axis_that_is_free_in_neither() -> None:
    nodes = [node("Conv", "x w4", "a"), node("Conv", "x w4", "b"), node("Sin", "b", "c"),
             node("Concat", "a c", "y", axis=2)]  # fmt: skip
    check(nodes, copies=2, conversions=2)


@pytest.mark.parametrize("shape", [[1, 6, 9], [1, 6, 2, 3, 5]], ids=str)
def test_other_ranks(shape: list[int]) -> None:
    nodes = [node("Conv", f"x w10_{len(shape)}", "a"), node("Split", "a sizes", "b c", axis=1),
             node("Sin", "b", "y"), node("Cos", "c", "z")]  # fmt: skip
    check(nodes, copies=0, conversions=2, inputs={"x": shape}, outputs="y z")


def test_layouts_are_as_before_for_what_is_looked_at() -> None:
    """Trying a layout leaves none behind: each value has that of its node."""
    proto = model(decoding("y"), {"x": [1, 6, 5, 7]}, {"y": None}, CONSTANTS)
    graph = lowered(proto, CPU)
    by_name = {v.name: v.layout for v in graph.values()}
    assert by_name["d"] == by_name["p"] == "c4"
    assert by_name["low"] == by_name["centre"] == by_name["y"] == "linear"


def test_a_constant_of_another_rank_comes_first() -> None:
    """What is written ``half * x``; a node with nothing to cut or join is left as it is."""
    check([node("Conv", "x w7", "c"), node("Mul", "half c", "y")], 0, 2)
