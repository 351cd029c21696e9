"""What costs nothing: concatenations, slices, splits and reshapes without a single dispatch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vkconv
from tests.harness import NODE, Case, random
from vkconv.dispatch import Storage, View
from vkconv.ops.registry import create, infer_types


def _kernels(case: Case) -> str:
    """What the placement says of the node: its kernels, or "view"."""
    with vkconv.InferenceSession(case.model()) as session:
        return {p.node: p.detail for p in session.placement}[NODE]


def _parts(*channels: int) -> tuple[np.ndarray, ...]:
    return tuple(random(2, c, 5, 7, seed=i) for i, c in enumerate(channels))


def _slice(shape: tuple[int, ...], start: int, end: int, axis: int, layout: Any = "c4") -> Case:
    ints = (np.array([start]), np.array([end]), np.array([axis]))
    return Case("Slice", (random(*shape), *ints), {}, 13, (1, 2, 3), layout=layout)


FREE = [
    Case("Concat", _parts(4, 8), {"axis": 1}, layout="c4"),
    Case("Concat", _parts(4, 8, 3), {"axis": 1}, layout="c4"),
    Case("Concat", _parts(5, 5), {"axis": 0}, layout="c4"),
    _slice((2, 16, 5, 7), 4, 12, 1),
    _slice((2, 15, 5, 7), 4, 15, 1),
    _slice((3, 5, 5, 7), 1, 3, 0),
    _slice((1, 84, 21), 4, 84, 1, "linear"),
    _slice((7, 5), 2, 6, 0, "linear"),
    Case("Split", (random(2, 16, 5, 7),), {"axis": 1}, 13, outputs=2, layout="c4"),
    Case("Split", (random(1, 6, 5),), {"axis": 1}, 13, outputs=3),
    Case("Reshape", (random(2, 6), np.array([3, 4])), {}, 13, (1,)),
    Case("Transpose", (random(1, 7, 1, 5),), {"perm": [0, 2, 1, 3]}),
    Case("Gather", (random(7, 5), np.array(3)), {}, 13, (1,)),
]
COPIED = [
    (Case("Concat", _parts(3, 5), {"axis": 1}, layout="c4"), "channel_copy"),
    (Case("Concat", _parts(4, 8), {"axis": 1}, layout="c4", constant=(0,)), "strided_copy"),
    (_slice((2, 16, 5, 7), 4, 11, 1), "channel_copy"),
    (_slice((2, 16, 5, 7), 1, 4, 2), "strided_copy"),
    (_slice((2, 16, 5), 1, 4, 1, "linear"), "strided_copy"),
]


@pytest.mark.parametrize("case", FREE, ids=str)
def test_free(case: Case) -> None:
    assert _kernels(case) == "view"


@pytest.mark.parametrize(("case", "kernel"), COPIED, ids=str)
def test_copied(case: Case, kernel: str) -> None:
    assert set(_kernels(case).split(", ")) == {kernel}


def test_a_slice_that_ends_within_a_vec4_is_no_view() -> None:
    # its padding lanes would show the next channels instead of zeros
    node = _slice((2, 16, 5, 7), 4, 11, 1).node()
    operator = create(node)
    (node.outputs[0].type,) = infer_types(operator, node)
    x = View(Storage(0, "x"), (2, 16, 5, 7), "float32", "c4", 0, 16 * 35)
    assert operator.view(x, node.outputs) is None
