"""Dispatches of the pooling kernels, shared by the pooling operators and means over (H, W)."""

from __future__ import annotations

from math import prod

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering
from vkconv.ops.reduction_kernels import MOST_ITERATIONS, Combine, Post, Pre, Reduction
from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis

#: ``kind`` of pool.comp
MAXIMUM, AVERAGE, AVERAGE_WITH_PADDING = 0, 1, 2
#: what the global pooling operators are as reductions
MEAN_OF_MAP, MAXIMUM_OF_MAP = Reduction(Combine.SUM, post=Post.MEAN), Reduction(Combine.MAX)
#: loads of ``sliding_max2d`` that llvmpipe still unrolls; above, its arrays lie in memory and it
#: takes five times as long. The 40 of 5x5 are more than the registers of Adreno 6xx hold.
_SLIDING_LOADS, _SLIDING_LOADS_ON_GPU = 48, 24
#: invocations of which a GPU has enough
_MANY_INVOCATIONS = 8192
#: lanes that share one map at most
_POOL_LANES = 64


def _inside(axes: tuple[Axis, ...]) -> bool:
    """Whether no window has a tap outside."""
    return all(a.begin == 0 and a.padding == (0, a.end) and a.end == 0 for a in axes)


def whole_map(axes: tuple[Axis, ...]) -> bool:
    """Whether the one window is the map."""
    return _inside(axes) and all(a.out == 1 and a.kernel == a.size for a in axes)


def too_many_taps(axes: tuple[Axis, ...], *, c4: bool = True) -> str | None:
    """Why the kernels can't take windows of this size, or None; ``c4``: whole maps have their
    own."""
    taps = prod(a.kernel for a in axes)
    if taps <= MOST_ITERATIONS or (c4 and whole_map(axes) and pools_globally(MEAN_OF_MAP, taps)):
        return None
    return f"its windows of {taps} taps are too large for one invocation's loops"


def pool(ctx: Lowering, x: View, y: View, axes: tuple[Axis, ...], kind: int) -> list[Dispatch]:
    """Windows over one to three spatial axes; x and y are C4."""
    n, blocks, _, _ = c4_dims(y.shape)
    if y.span == 0:
        return []
    inside = _inside(axes)
    if whole_map(axes):
        return global_pool(ctx, x, y, MAXIMUM_OF_MAP if kind == MAXIMUM else MEAN_OF_MAP)
    one = Axis(1, 1, 1, 1, 1, 0, 0)
    d, h, w = (one,) * (3 - len(axes)) + axes
    # on a CPU an index costs as much as two taps, so several outputs share it; more than two padded
    # means exceed what the driver unrolls, and then take three times as long
    shared_rows = 4 if kind == MAXIMUM or inside else 2
    taps = max(d.kernel * h.kernel * w.kernel, 1)
    shared_rows = max(1, min(shared_rows, h.out, MOST_ITERATIONS // taps))
    rows = shared_rows if ctx.caps.kind == "cpu" else 1
    width = d.out * ceil_div(h.out, rows) * w.out
    grid = spread(ctx.caps, width, blocks, n, most_turns=MOST_ITERATIONS // (rows * taps))
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
    taps = max(prod(a.kernel for a in axes), 1)
    grid = spread(ctx.caps, y.span // maps, maps, most_turns=MOST_ITERATIONS // taps)
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


def select_sliding(caps: DeviceCaps, shape: tuple[int, ...], axes: tuple[Axis, ...]) -> int | None:
    """How to take a 2-D maximum that moves by one pixel and keeps the map's size: rows an
    invocation of ``sliding_max2d``, 0 for two passes of ``sliding_max``, None for neither."""
    if len(axes) != 2 or any(
        a.stride * a.dilation != 1 or a.out != a.size or a.kernel < 2 for a in axes
    ):
        return None
    down, across = axes
    n, blocks, h, w = c4_dims(shape)
    invocations = n * blocks * ceil_div(w, 4) * ceil_div(h, 2)
    wanted = (4, 2) if caps.kind == "cpu" else (2, 1) if invocations >= _MANY_INVOCATIONS else (1,)
    most = _SLIDING_LOADS if caps.kind == "cpu" else _SLIDING_LOADS_ON_GPU
    if caps.unrolls_loops:
        for rows in wanted:
            if (rows + down.kernel - 1) * (across.kernel + 3) <= most:
                return rows
    return 0 if min(down.kernel, across.kernel) >= 4 else None


def sliding_maximum(ctx: Lowering, x: View, y: View, axes: tuple[Axis, ...]) -> list[Dispatch]:
    """A 2-D maximum at stride 1 that keeps the map's size, windows of 4 and more: along W first,
    then along H."""
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


def sliding_maximum2d(
    ctx: Lowering, x: View, y: View, axes: tuple[Axis, ...], rows: int
) -> list[Dispatch]:
    """As ``sliding_maximum``, in one dispatch, ``rows`` x 4 results an invocation."""
    n, blocks, h, w = c4_dims(y.shape)
    if y.span == 0:
        return []
    grid = spread(ctx.caps, ceil_div(h, rows) * ceil_div(w, 4), blocks, n)
    return [
        ctx.dispatch(
            "sliding_max2d",
            {"x": x, "y": y},
            {
                "batches": n,
                "blocks": blocks,
                "height": h,
                "width": w,
                "pad_y": axes[0].begin,
                "pad_x": axes[1].begin,
            },
            {**grid.spec, "taps_y": axes[0].kernel, "taps_x": axes[1].kernel, "rows": rows},
            grid.count,
        )
    ]


def pools_globally(how: Reduction, pixels: int) -> bool:
    """Whether ``global_pool`` can do this: padding lanes must stay zero, and loops end in time."""
    return (
        how.combine != Combine.PROD
        and how.pre != Pre.EXP
        and how.post != Post.LOG
        and 0 < pixels <= MOST_ITERATIONS * _POOL_LANES
    )


def global_pool(ctx: Lowering, x: View, y: View, how: Reduction) -> list[Dispatch]:
    """Every map reduced to a number: C4 (N, C, *spatial) -> C4 with N, C and one pixel.

    y's shape is not looked at: it may lack the spatial axes, as long as its memory is C4.
    """
    n, blocks, h, w = c4_dims(x.shape)
    if n * blocks == 0:
        return []
    # one workgroup per map: on a CPU a single vector's worth of lanes, for barriers are slow there
    short = ctx.caps.kind == "cpu" and h * w <= MOST_ITERATIONS * 8
    allowed = min(ctx.caps.max_workgroup_invocations, ctx.caps.max_workgroup_size[0])
    limit = min(8 if short else _POOL_LANES, allowed)
    size = 1
    while size * 2 <= limit and size < h * w:
        size *= 2
    grid = spread(ctx.caps, 1, blocks, n, size=size)
    return [
        ctx.dispatch(
            "global_pool2d",
            {"x": x, "y": y},
            {"batches": n, "blocks": blocks, "pixels": h * w},
            {
                **grid.spec,
                "combination": int(how.combine),
                "pre": int(how.pre),
                "post": int(how.post),
            },
            grid.count,
        )
    ]
