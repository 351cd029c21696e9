"""Dispatches that only move elements: strided copies, and channel ranges between C4 tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering
from vkconv.ops.shapes import ceil_div

#: dimensions of strided_copy.comp
KERNEL_DIMS = 6


@dataclass(frozen=True)
class Dim:
    """One loop of a copy: ``size`` steps of ``x`` elements in the source, ``y`` in the target."""

    size: int
    x: int
    y: int


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense tensor."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


def c4_strides(view: View) -> tuple[int, ...]:
    """Strides of a C4 tensor's dimensions (N, C / 4, *spatial), in vec4."""
    spatial = view.shape[2:]
    block = 1
    for d in spatial:
        block *= d
    return (view.batch_stride // 4, block, *row_major(spatial))


def collapse(dims: Sequence[Dim]) -> list[Dim]:
    """The same copy in as few dimensions as possible: size 1 dropped, neighbours merged."""
    result: list[Dim] = []
    for dim in dims:
        if dim.size == 1:
            continue
        if result and (result[-1].x, result[-1].y) == (dim.x * dim.size, dim.y * dim.size):
            result[-1] = Dim(result[-1].size * dim.size, dim.x, dim.y)
        else:
            result.append(dim)
    return result or [Dim(1, 1, 1)]


def strided_copy(
    ctx: Lowering,
    x: View,
    y: View,
    dims: Sequence[Dim],
    x_start: int = 0,
    y_start: int = 0,
    *,
    vec4: bool = False,
) -> list[Dispatch]:
    """Copy along ``dims``, the innermost last; all counts are of scalars, or of vec4s.

    Copies of scalars that run along whole vec4s in both tensors are done as such.
    """
    if any(d.size == 0 for d in dims):
        return []
    loops = collapse(dims)
    if not vec4 and _runs_of_four(x, y, loops, x_start, y_start):
        inner = loops[-1]
        loops = [Dim(d.size, d.x // 4, d.y // 4) for d in loops[:-1]]
        loops.append(Dim(inner.size // 4, 1, 1))
        loops = collapse(loops)
        x_start, y_start, vec4 = x_start // 4, y_start // 4, True
    if ctx.caps.kind == "cpu":
        loops = _gentler_order(loops)
    if len(loops) > KERNEL_DIMS:
        head, rest = loops[0], loops[1:]
        return [
            d
            for i in range(head.size)
            for d in strided_copy(
                ctx, x, y, rest, x_start + i * head.x, y_start + i * head.y, vec4=vec4
            )
        ]
    loops = [Dim(1, 0, 0)] * (KERNEL_DIMS - len(loops)) + loops
    outer = [d.size for d in loops[:4]]
    height, width = loops[4].size, loops[5].size
    # a short row would leave most lanes idle; then the lanes run over two dimensions
    inner_two = height > 1 and width < 64
    if inner_two:
        height, width = 1, height * width
    grid = spread(ctx.caps, width, height, outer[0] * outer[1] * outer[2] * outer[3])
    axes = {"width": "four"} if vec4 else {"width": "one", "access": "ssbo"}
    return [
        ctx.dispatch(
            "strided_copy",
            {"x": x, "y": y},
            {
                "x_start": x_start,
                "y_start": y_start,
                "size": [d.size for d in loops],
                "x_stride": [d.x for d in loops],
                "y_stride": [d.y for d in loops],
            },
            {
                **grid.spec,
                "outer_dims": sum(1 for n in outer if n > 1),
                "inner_two": int(inner_two),
            },
            grid.count,
            **axes,
        )
    ]


def _gentler_order(loops: list[Dim]) -> list[Dim]:
    """A transposition runs along the target's rows, or along the source's where that keeps the
    far side closer together: far apart means few cache sets (a 1x3x85x80x80 tensor with its 85
    moved last takes lavapipe 30 ms the first way, 12 the second)."""
    for i, dim in enumerate(loops[:-1]):
        if abs(dim.x) == 1 and abs(loops[-1].x) > abs(dim.y):
            return [*loops[:i], *loops[i + 1 :], dim]
    return loops


def _runs_of_four(x: View, y: View, loops: Sequence[Dim], x_start: int, y_start: int) -> bool:
    inner = loops[-1]
    multiples = [inner.size, x_start, y_start, x.offset, y.offset]
    multiples += [s for d in loops[:-1] for s in (d.x, d.y)]
    # moved as vec4 of float: integers are left to the scalar kernel, which moves bits
    is_float = not x.is_integer and not y.is_integer
    return is_float and inner.x == inner.y == 1 and all(m % 4 == 0 for m in multiples)


def channel_copy(
    ctx: Lowering, x: View, y: View, x_first: int, y_first: int, count: int, *, merge: bool
) -> list[Dispatch]:
    """Channels ``[x_first, x_first + count)`` of x into y from ``y_first`` on; both C4, same maps.

    ``merge`` keeps the channels of y that share a vec4 with the first; channels behind the last
    that share its vec4 become zero.
    """
    n, _, h, w = c4_dims(y.shape)
    if n * h * w * count == 0:
        return []
    blocks = ceil_div(y_first + count, 4) - y_first // 4
    grid = spread(ctx.caps, h * w, blocks, n)
    return [
        ctx.dispatch(
            "channel_copy",
            {"x": x, "y": y},
            {
                "batches": n,
                "pixels": h * w,
                "x_first": x_first,
                "y_first": y_first,
                "count": count,
            },
            {**grid.spec, "shift": (x_first - y_first) % 4, "merge": int(merge)},
            grid.count,
        )
    ]
