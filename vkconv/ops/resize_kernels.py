"""Dispatches of a resize, from the tables of its axes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ir import Array
from vkconv.ops.copying import Dim, c4_strides, row_major, strided_copy
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering
from vkconv.ops.resize_tables import AxisTable
from vkconv.ops.shapes import ceil_div


def resize(
    ctx: Lowering, x: View, y: View, tables: Mapping[int, AxisTable], extrapolation: float
) -> list[Dispatch]:
    """y = x with the axes in ``tables`` resized. C4 takes spatial axes only.

    One pass resizes the last two axes together, and each further axis has its own, through
    temporaries.
    """
    if 0 in y.shape:
        return []
    rank = len(x.shape)
    plane = {a: t for a, t in tables.items() if a >= rank - 2}
    if x.layout == "c4" and rank == 3:
        plane = {a: t for a, t in tables.items() if a == 2}
    passes = [{a: t} for a, t in sorted(tables.items()) if a not in plane]
    if plane:
        passes.append(plane)
    steps: list[Dispatch] = []
    source = x
    for i, tables_of_pass in enumerate(passes):
        shape = list(source.shape)
        for axis in tables_of_pass:
            shape[axis] = y.shape[axis]
        target = y if i == len(passes) - 1 else _temporary(ctx, y, tuple(shape), i)
        steps.append(_pass(ctx, source, target, tables_of_pass, extrapolation))
        source = target
    if not passes:  # every axis stays as it is
        steps += _copy(ctx, x, y)
    return steps


def _temporary(ctx: Lowering, like: View, shape: tuple[int, ...], number: int) -> View:
    if like.layout == "linear":
        made = ctx.scratch(math.prod(shape), f"pass {number}")
        return View(made.storage, shape, "float32", "linear", made.offset)
    n, blocks, h, w = c4_dims(shape)
    made = ctx.scratch(n * blocks * h * w * 4, f"pass {number}")
    return View(made.storage, shape, "float32", "c4", made.offset, blocks * h * w * 4)


def _pass(
    ctx: Lowering, x: View, y: View, tables: Mapping[int, AxisTable], extrapolation: float
) -> Dispatch:
    """One dispatch: x seen as maps, of which rows, columns or both are resized."""
    rank = len(x.shape)
    is_c4 = x.layout == "c4"
    batches = x.shape[0] if is_c4 else 1
    lead = c4_dims(x.shape)[1:2] if is_c4 else x.shape[:0]
    first = 2 if is_c4 else 0
    if max(tables) == rank - 1 or set(tables) == {rank - 2}:
        # the last two axes; a tensor of a single (spatial) axis has one row
        row_axis: int | None = rank - 2 if rank - 2 >= first else None
        row_table, column_table = tables.get(rank - 2), tables.get(rank - 1)
        in_h = x.shape[rank - 2] if row_axis is not None else 1
        out_h = y.shape[rank - 2] if row_axis is not None else 1
        in_w, out_w = x.shape[-1], y.shape[-1]
        inner = math.prod(x.shape[first : max(first, rank - 2)])
    else:
        (axis,) = tables
        row_table, column_table = tables[axis], None
        in_h, out_h = x.shape[axis], y.shape[axis]
        in_w = out_w = math.prod(x.shape[axis + 1 :])
        inner = math.prod(x.shape[first:axis])
    maps = math.prod(lead) * inner
    factors = (
        1 if row_table is None else row_table.whole_factor(in_h),
        1 if column_table is None else column_table.whole_factor(in_w),
    )
    if is_c4 and factors[0] and factors[1]:
        grid = spread(ctx.caps, in_h * in_w, maps, batches)
        return ctx.dispatch(
            "upsample2d",
            {"x": x, "y": y},
            {"batches": batches, "maps": maps, "height": in_h, "width": in_w},
            {**grid.spec, "scale_h": factors[0], "scale_w": factors[1]},
            grid.count,
        )
    packed = [
        np.zeros((0, 4), np.float32) if t is None else _pack(t) for t in (row_table, column_table)
    ]
    used = [t for t in (row_table, column_table) if t is not None]
    rows = min(4, out_h) if ctx.caps.kind == "cpu" else 1
    width = ceil_div(out_h, rows) * out_w
    grid = spread(ctx.caps, width, maps, batches)
    push = {
        "batches": batches,
        "maps": maps,
        "in_h": in_h,
        "in_w": in_w,
        "out_h": out_h,
        "out_w": out_w,
        "table_w": len(packed[0]),
        "channels": x.shape[1] if is_c4 else 1,
        "maps_per_block": max(inner, 1),
        "extrapolation": extrapolation,
    }
    axes = {"width": "four"} if is_c4 else {"width": "one", "access": "ssbo"}
    return ctx.dispatch(
        "resize2d",
        {"x": x, "y": y, "table": ctx.constant(np.concatenate(packed), "table")},
        push,
        {
            **grid.spec,
            "pairs_h": 0 if row_table is None else len(packed[0]) // out_h,
            "pairs_w": 0 if column_table is None else len(packed[1]) // out_w,
            "rows": rows,
            "extrapolate": int(any(t.outside.any() for t in used)),
            "single": int(all(t.indices.shape[1] == 1 for t in used)),
        },
        grid.count,
        **axes,
    )


def _pack(table: AxisTable) -> Array:
    """(out * pairs, 4) float32: index, weight, index, weight. Indices are exact below 2**24."""
    out, taps = table.indices.shape
    pairs = np.zeros((out, ceil_div(taps, 2) * 2, 2), np.float32)
    pairs[:, :taps, 0] = table.indices
    pairs[:, :taps, 1] = table.weights
    pairs[table.outside, 0, 0] = -1
    return pairs.reshape(-1, 4)


def _copy(ctx: Lowering, x: View, y: View) -> list[Dispatch]:
    if x.layout == "linear":
        dims = [Dim(*d) for d in zip(x.shape, row_major(x.shape), row_major(y.shape), strict=True)]
        return strided_copy(ctx, x, y, dims)
    n, blocks, _, _ = c4_dims(x.shape)
    sizes = (n, blocks, *x.shape[2:])
    dims = [Dim(*d) for d in zip(sizes, c4_strides(x), c4_strides(y), strict=True)]
    return strided_copy(ctx, x, y, dims, vec4=True)
