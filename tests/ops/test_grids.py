"""Grids: they cover everything, stay within limits, and no invocation loops for too long."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from tests.harness import Case, check_device, random
from vkconv.capabilities import DeviceCaps
from vkconv.ops.grids import MAX_TURNS, lanes, spread
from vkconv.ops.shapes import ceil_div

CPU = DeviceCaps(kind="cpu", max_workgroup_invocations=1024)
SMALL = DeviceCaps(kind="integrated")


@pytest.mark.parametrize("caps", [CPU, SMALL], ids=["cpu", "small"])
@pytest.mark.parametrize(
    "work",
    [(1, 1, 1), (10**8, 1, 1), (1, 10**4, 10**4), (7, 65537, 3), (10**6, 100, 2), (1, 1, 10**7)],
)
def test_every_item_is_reached_in_few_turns(caps: DeviceCaps, work: tuple[int, int, int]) -> None:
    grid = spread(caps, *work)
    wanted = (ceil_div(work[0], lanes(caps, work[0])), *work[1:])
    assert all(c <= limit for c, limit in zip(grid.count, caps.max_workgroup_count, strict=True))
    turns = [ceil_div(w, c) for w, c in zip(wanted, grid.count, strict=True)]
    at_limit = any(c == 65535 for c in grid.count)
    assert prod(turns) <= 2 * MAX_TURNS or at_limit
    for axis, turn in zip("xyz", turns, strict=True):
        assert turn == 1 or grid.spec[f"loop_{axis}"]


def test_a_strided_copy_of_many_short_rows_is_whole() -> None:
    """Nine million rows of one element: what one invocation does was cut off by llvmpipe."""
    case = Case(
        "Slice", (random(3000, 3000, 2), *map(np.array, ([0], [1], [2]))), constant=(1, 2, 3)
    )
    check_device(case)
