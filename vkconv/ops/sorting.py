"""Rows of a tensor sorted on the device: small pieces first, which are then merged two and two.

Of a row only the best ``kept`` are carried along, so that finding a few of many costs little more
than reading them.
"""

from __future__ import annotations

from vkconv.dispatch import Dispatch, View
from vkconv.ops.grids import lanes, spread
from vkconv.ops.lowering import Lowering
from vkconv.ops.rows import full_grid
from vkconv.ops.shapes import ceil_div

#: elements in all that the kernels sort: beyond, their loops would have too many iterations (see
#: reduction_kernels)
MOST_ELEMENTS = 1 << 24


def tile_size(ctx: Lowering) -> int:
    """Elements of a piece: sorting it takes as many comparisons for each of them, fewer passes
    follow."""
    return 64 if ctx.caps.kind == "cpu" else 256


def sort_rows(
    ctx: Lowering, x: View, rows: int, length: int, inner: int, kept: int, *, ascending: bool
) -> tuple[list[Dispatch], View]:
    """Dispatches, and the best ``kept`` of each row in order: keys (rows, kept), then indices
    (rows, kept).

    Element i of row (o, c) is x[o, i, c], ``inner`` the size of c. Larger elements come first, or
    with ``ascending`` smaller ones, and of equal ones the first; NaN counts as the largest.
    """
    tile = tile_size(ctx)
    width = lanes(ctx.caps, min(tile, length))
    tile = min(tile, ceil_div(length, width) * width)
    lists, room, span = ceil_div(length, tile), min(tile, kept), tile
    pairs = ctx.scratch(2 * rows * lists * room, "sorted pieces")
    grid = full_grid(ctx.caps, lists, rows, width)
    result = [
        ctx.dispatch(
            "sort_tiles",
            {"x": x, "pairs": pairs},
            {
                "pairs_plane": rows * lists * room,
                "rows": rows,
                "length": length,
                "inner": inner,
                "pieces": lists,
                "kept": room,
            },
            {
                **grid.spec,
                "tile": tile,
                "is_float": int(not x.is_integer),
                "ascending": int(ascending),
            },
            grid.count,
        )
    ]
    while lists > 1:
        merged, more = ceil_div(lists, 2), min(2 * room, kept)
        target = ctx.scratch(2 * rows * merged * more, "merged pieces")
        grid = spread(ctx.caps, merged * 2 * room, rows)
        result.append(
            ctx.dispatch(
                "merge_sorted",
                {"x": pairs, "y": target},
                {
                    "x_plane": rows * lists * room,
                    "y_plane": rows * merged * more,
                    "rows": rows,
                    "length": length,
                    "lists": lists,
                    "span": span,
                    "room": room,
                    "kept": more,
                },
                grid.spec,
                grid.count,
            )
        )
        pairs, lists, room, span = target, merged, more, span * 2
    return result, pairs
