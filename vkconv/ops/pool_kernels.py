"""Dispatches of the pooling kernels, shared by the pooling operators and means over (H, W)."""

from __future__ import annotations

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ops.base import Lowering, ceil_div
from vkconv.ops.grids import spread
from vkconv.ops.window import Axis

#: ``kind`` of pool.comp
MAXIMUM, AVERAGE, AVERAGE_WITH_PADDING = 0, 1, 2


def pool(ctx: Lowering, x: View, y: View, axes: tuple[Axis, ...], kind: int) -> list[Dispatch]:
    """Windows over one to three spatial axes; x and y are C4."""
    n, blocks, _, _ = c4_dims(y.shape)
    if y.span == 0:
        return []
    inside = all(a.begin == 0 and a.padding == (0, a.end) and a.end == 0 for a in axes)
    if inside and all(a.out == 1 and a.kernel == a.size for a in axes):
        return global_pool(ctx, x, y, maximum=kind == MAXIMUM)
    one = Axis(1, 1, 1, 1, 1, 0, 0)
    d, h, w = (one,) * (3 - len(axes)) + axes
    # on a CPU an index costs as much as two taps, so several outputs share it; more than two padded
    # means exceed what the driver unrolls, and then take three times as long
    shared_rows = 4 if kind == MAXIMUM or inside else 2
    rows = min(shared_rows, h.out) if ctx.caps.kind == "cpu" else 1
    width = d.out * ceil_div(h.out, rows) * w.out
    grid = spread(ctx.caps, width, blocks, n)
    spatial = (d, h, w)
    return [
        ctx.dispatch(
            "pool",
            {"x": x, "y": y},
            {
                "batches": n,
                "channels": y.shape[1],
                "in_size": [a.size for a in spatial],
                "out_size": [a.out for a in spatial],
                "stride": [a.stride for a in spatial],
                "dilation": [a.dilation for a in spatial],
                "pad_begin": [a.begin for a in spatial],
                "pad_end": [a.end for a in spatial],
            },
            {
                **grid.spec,
                "kind": kind,
                "kernel_d": d.kernel,
                "kernel_h": h.kernel,
                "kernel_w": w.kernel,
                "deep": int(d.out > 1),
                "rows": rows,
                "padded": int(not inside),
            },
            grid.count,
        )
    ]


def pool_with_indices(
    ctx: Lowering,
    x: View,
    y: View,
    indices: View | None,
    axes: tuple[Axis, ...],
    *,
    column_major: bool,
) -> list[Dispatch]:
    """Maxima, and where in x they were; linear tensors of floats or integers."""
    if y.span == 0:
        return []
    axes = (Axis(1, 1, 1, 1, 1, 0, 0),) * (3 - len(axes)) + axes
    minus_infinity = int(np.float32(-np.inf).view(np.int32))
    lowest = int(np.iinfo(x.dtype).min) if x.is_integer else minus_infinity
    maps = x.shape[0] * x.shape[1]
    grid = spread(ctx.caps, y.span // maps, maps)
    return [
        ctx.dispatch(
            "max_pool_indices",
            {"x": x, "y": y, "indices": indices},
            {
                "maps": maps,
                "lowest": lowest,
                "in_size": [a.size for a in axes],
                "out_size": [a.out for a in axes],
                "kernel": [a.kernel for a in axes],
                "stride": [a.stride for a in axes],
                "dilation": [a.dilation for a in axes],
                "pad": [a.begin for a in axes],
            },
            {
                **grid.spec,
                "INDICES": int(indices is not None),
                "COLUMN_MAJOR": int(column_major),
            },
            grid.count,
            dtype="int" if x.is_integer else "float",
        )
    ]


def sliding_maximum(ctx: Lowering, x: View, y: View, axes: tuple[Axis, ...]) -> list[Dispatch]:
    """A 2-D maximum at stride 1 that keeps the map's size: along W first, then along H."""
    n, blocks, h, w = c4_dims(y.shape)
    if y.span == 0:
        return []
    rows = ctx.scratch(n * blocks * h * w * 4, "row maxima")
    between = View(rows.storage, y.shape, y.dtype, "c4", rows.offset, blocks * h * w * 4)

    def along(axis: Axis, source: View, target: View, along_width: bool) -> Dispatch:
        width = ceil_div(w, 4) * h if along_width else ceil_div(h, 4) * w
        grid = spread(ctx.caps, width, blocks, n)
        return ctx.dispatch(
            "sliding_max",
            {"x": source, "y": target},
            {
                "batches": n,
                "blocks": blocks,
                "height": h,
                "width": w,
                "pad": axis.begin,
                "along_width": int(along_width),
            },
            {**grid.spec, "taps": axis.kernel},
            grid.count,
        )

    return [along(axes[1], x, between, True), along(axes[0], between, y, False)]


def global_pool(ctx: Lowering, x: View, y: View, *, maximum: bool) -> list[Dispatch]:
    """The mean or maximum of every map: C4 (N, C, *spatial) -> C4 with N, C and one pixel.

    y's shape is not looked at: it may lack the spatial axes, as long as its memory is C4.
    """
    n, blocks, h, w = c4_dims(x.shape)
    if n * blocks == 0:
        return []
    # one workgroup per map: on a CPU a single vector's worth of lanes, for barriers are slow there
    limit = 8 if ctx.caps.kind == "cpu" else 64
    size = 1
    while size * 2 <= min(limit, ctx.caps.max_workgroup_invocations) and size < h * w:
        size *= 2
    grid = spread(ctx.caps, 1, blocks, n, size=size)
    return [
        ctx.dispatch(
            "global_pool2d",
            {"x": x, "y": y},
            {"batches": n, "blocks": blocks, "pixels": h * w},
            {**grid.spec, "maximum": int(maximum)},
            grid.count,
        )
    ]
