"""Slices of a tensor copied by indices that the device holds."""

from __future__ import annotations

from math import prod

from vkconv.dispatch import Dispatch, View
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering


def pick_slices(ctx: Lowering, x: View, indices: View, y: View, axis: int) -> list[Dispatch]:
    """Dispatches of y = the slices of x along ``axis`` that the first indices name, as many as y
    has room for; all linear."""
    outer, count, inner = prod(y.shape[:axis]), y.shape[axis], prod(y.shape[axis + 1 :])
    if not outer * count * inner:
        return []
    grid = spread(ctx.caps, count * inner, outer)
    return [
        ctx.dispatch(
            "gather",
            {"x": x, "indices": indices, "y": y},
            {"outer": outer, "axis_size": x.shape[axis], "count": count, "inner": inner},
            {**grid.spec, "inner_is_one": int(inner == 1)},
            grid.count,
        )
    ]
