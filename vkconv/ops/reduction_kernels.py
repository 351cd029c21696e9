"""Reductions of linear tensors as dispatches of the kernel ``reduce``: pure shape arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod

from vkconv.dispatch import Dispatch, View
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering
from vkconv.ops.shapes import ceil_div
from vkconv.ops.shared_rows import CHUNK, OWN_ROW, share_strided

#: kept, and reduced, dimensions that the kernel has
KERNEL_DIMENSIONS = 3
#: iterations that one invocation may make in all its loops together. llvmpipe ends every loop after
#: 65535 (Mesa's LP_MAX_TGSI_LOOP_ITERATIONS), silently; and long loops run into the watchdogs of
#: GPUs
MOST_ITERATIONS = 50_000


class Combine(IntEnum):
    """``COMBINE_<name>`` of ``shaders/reduce.comp`` (a test compares; so for the next two)."""

    SUM = 0
    MAX = 1
    MIN = 2
    PROD = 3


class Pre(IntEnum):
    """``PRE_<name>``: what happens to an element first."""

    NONE = 0
    ABS = 1
    SQUARE = 2
    EXP = 3


class Post(IntEnum):
    """``POST_<name>``: what happens to a result last."""

    NONE = 0
    MEAN = 1
    SQRT = 2
    LOG = 3


@dataclass(frozen=True)
class Reduction:
    """y = post(combine of pre(x))."""

    combine: Combine
    pre: Pre = Pre.NONE
    post: Post = Post.NONE


@dataclass(frozen=True)
class Axis:
    """One dimension of the loop: its size, and the step in x and in y."""

    size: int
    stride: int
    step: int = 0


@dataclass(frozen=True)
class Axes:
    """What stays and what is summed up, outermost first; neighbours merged."""

    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]


def merge_axes(shape: Sequence[int], reduced: Sequence[int]) -> Axes:
    """The dimensions of a row-major tensor, split in two; size 1 dropped, neighbours of a kind
    merged."""
    kept: list[Axis] = []
    gone: list[Axis] = []
    stride = step = 1
    previous = None
    for d in range(len(shape) - 1, -1, -1):
        if shape[d] == 1:
            continue
        kind = d in reduced
        target = gone if kind else kept
        if previous == kind:
            target[-1] = Axis(target[-1].size * shape[d], target[-1].stride, target[-1].step)
        else:
            target.append(Axis(shape[d], stride, 0 if kind else step))
        previous = kind
        stride *= shape[d]
        step *= 1 if kind else shape[d]
    return Axes(tuple(kept[::-1]), tuple(gone[::-1]))


def too_long(how: Reduction, axes: Axes) -> bool:
    """Whether the kernel's loops would have too many iterations even with all lanes and chunks."""
    if not axes.reduced:
        return False
    outer = prod(a.size for a in axes.reduced[:-1])
    if axes.reduced[-1].size < 16:
        return outer * axes.reduced[-1].size > MOST_ITERATIONS
    passes, chunks = (2, 1) if how.pre == Pre.EXP else (1, 256)
    per_lane = ceil_div(
        axes.reduced[-1].size, 64 * min(chunks, max(axes.reduced[-1].size // CHUNK, 1))
    )
    return passes * outer * max(per_lane, 16) > MOST_ITERATIONS


def lower_reduction(
    ctx: Lowering, how: Reduction, x: View, y: View, reduced: Sequence[int]
) -> list[Dispatch]:
    """The dispatches of y = x reduced over the axes ``reduced``, which y may keep as size 1."""
    axes = merge_axes(x.shape, reduced)
    results = prod(a.size for a in axes.kept)
    if not results:
        return []
    inner = axes.reduced[-1] if axes.reduced else Axis(1, 0)
    count = float(prod(a.size for a in axes.reduced))
    shared = inner.size >= 16 and (inner.stride == 1 or results < 64 or count > CHUNK)
    chunks = 1
    if shared and how.pre != Pre.EXP and (results < 16 or inner.size > MOST_ITERATIONS):
        chunks = max(1, min(inner.size // CHUNK, 256))
    if chunks == 1:
        return [_dispatch(ctx, how, x, y, axes, count, shared)]
    length = ceil_div(inner.size, chunks)
    chunks = ceil_div(inner.size, length)
    storage = ctx.scratch(results * chunks, "chunks").storage
    partial = View(storage, (results, chunks), y.dtype, "linear")
    first = Reduction(how.combine, how.pre)
    second = Reduction(how.combine, Pre.NONE, how.post)
    return [
        _dispatch(ctx, first, x, partial, axes, count, True, chunks, length),
        _dispatch(
            ctx, second, partial, y, merge_axes((results, chunks), (1,)), count, chunks >= 16
        ),
    ]


def _dispatch(
    ctx: Lowering,
    how: Reduction,
    x: View,
    y: View,
    axes: Axes,
    count: float,
    shared: bool,
    chunks: int = 1,
    chunk_length: int = 0,
) -> Dispatch:
    kept = [Axis(1, 0)] * (KERNEL_DIMENSIONS - len(axes.kept)) + list(axes.kept)
    if not shared:
        # the lanes run over the longest kept dimension: y's order is in its steps
        kept.sort(key=lambda a: a.size)
    reduced = [Axis(1, 0)] * (KERNEL_DIMENSIONS - len(axes.reduced)) + list(axes.reduced)
    sizes = [a.size for a in kept]
    row = share_strided(ctx.caps, reduced[-1].size) if shared else OWN_ROW
    if shared:
        grid = spread(ctx.caps, chunks, sizes[2], sizes[0] * sizes[1], size=1)
        spec = {**grid.spec, "local_size_x": row.lanes}
    else:
        grid = spread(ctx.caps, sizes[2], sizes[1], sizes[0])
        spec = dict(grid.spec)
    return ctx.dispatch(
        "reduce",
        {"x": x, "y": y},
        {
            "kept_size": sizes,
            "kept_stride": [a.stride for a in kept],
            "kept_step": [a.step for a in kept],
            "reduced_size": [a.size for a in reduced],
            "reduced_stride": [a.stride for a in reduced],
            "chunks": chunks,
            "chunk_length": chunk_length or reduced[-1].size,
            "count": count,
        },
        {
            **spec,
            "combination": int(how.combine),
            "pre": int(how.pre),
            "post": int(how.post),
        },
        grid.count,
        dtype="int" if x.is_integer else "float",
        lanes=row.axes["lanes"],
    )
