"""Remainders of floats as dispatches of the kernel ``float_mod``: exact, whatever the quotient."""

from __future__ import annotations

from vkconv.dispatch import Dispatch, View
from vkconv.ops.broadcasting import linear_walk
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering


def lower_float_mod(ctx: Lowering, a: View, b: View, y: View, *, floored: bool) -> list[Dispatch]:
    """Dispatches of y = the remainder of a / b with b's sign (``floored``) or a's; linear views."""
    if not y.span:
        return []
    walk = linear_walk(y.shape, (a.shape, b.shape)).padded()
    grid = spread(ctx.caps, y.span)
    return [
        ctx.dispatch(
            "float_mod",
            {"a": a, "b": b, "y": y},
            {
                "count": y.span,
                "size": walk.size,
                "a_stride": walk.strides[0],
                "b_stride": walk.strides[1],
            },
            {**grid.spec, "floored": int(floored)},
            grid.count,
        )
    ]
