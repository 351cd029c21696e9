"""Operands of a matrix product as the kernel ``matrix_product`` wants them.

On the left rows of whole vec4s along K; on the right panels of columns, each [K][panel] of vec4
along N, where a row-major matrix is one panel. Constants are packed when the plan is made; computed
operands that do not lie so (transposed, odd sizes, odd offsets) are packed by a dispatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vkconv.dispatch import Dispatch, View
from vkconv.ir import Array
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.packing import pad_axis
from vkconv.ops.shapes import ceil_div
from vkconv.weight_packing import packing


@dataclass(frozen=True)
class Matrices:
    """An operand: a batch of matrices (rows, columns), ``transposed`` in memory or not. ``pitch``:
    the elements from row to row where that is more than the columns; what lies between is zero."""

    tensor: Tensor
    batch: tuple[int, ...]
    rows: int
    columns: int
    transposed: bool = False
    pitch: int = 0

    def array(self, source: Array) -> Array:
        """A constant's values as (batch, rows, columns)."""
        if self.transposed:
            return source.reshape(-1, self.columns, self.rows).transpose(0, 2, 1)
        return source.reshape(-1, self.rows, self.columns)

    @property
    def count(self) -> int:
        return prod(self.batch)


def pack_left(ctx: Lowering, a: Matrices, steps: list[Dispatch]) -> View:
    """The left operand with rows of whole vec4s."""
    array = a.tensor.array
    if array is not None:
        source = array
        tag = f"left {a.rows}x{a.columns} {a.transposed}"
        return ctx.prepack(array, tag, lambda: pad_axis(a.array(source), 2, 4))
    view = a.tensor.on_device
    if not a.transposed and (a.pitch or a.columns) % 4 == 0 and view.offset % 4 == 0:
        return view
    return _pack_on_device(ctx, a, a.rows, steps, "a in vec4s")


def pack_right(
    ctx: Lowering, b: Matrices, first: int, last: int, tile_panel: int, steps: list[Dispatch]
) -> tuple[View, int, int]:
    """The right operand's columns from ``first`` to ``last``: the view, vec4 columns per panel, and
    vec4s per matrix."""
    depth = ceil_div(b.rows, 4)
    columns4 = ceil_div(last - first, 4)
    array = b.tensor.array
    if array is not None:
        panel = min(tile_panel, columns4)
        tag = f"right {b.rows}x{b.columns} {b.transposed} {first}:{last} by {panel}"
        panels = ceil_div(columns4, panel)
        numbers = {"count": b.count, "depth": b.rows, "columns": b.columns, "first": first}
        numbers |= {"last": last, "width": 4 * panel, "transposed": int(b.transposed)}
        made = packing("panels", array, **numbers)
        return ctx.prepack(array, tag, made), panel, panels * depth * 4 * panel
    view = b.tensor.on_device
    aligned = b.rows % 4 == 0 and b.columns % 4 == 0 and view.offset % 4 == 0
    if b.transposed or not aligned:
        view = _pack_on_device(ctx, b, depth * 4, steps, "b in vec4s")
    return view, columns4, depth * 4 * columns4


def _pack_on_device(
    ctx: Lowering, x: Matrices, padded_rows: int, steps: list[Dispatch], name: str
) -> View:
    """A row-major copy: columns padded to whole vec4s, rows to ``padded_rows``."""
    columns4 = ceil_div(x.columns, 4)
    packed = ctx.scratch(x.count * padded_rows * columns4 * 4, name)
    grid = spread(ctx.caps, columns4, padded_rows, x.count)
    steps.append(
        ctx.dispatch(
            "pack_matrix",
            {"x": x.tensor.on_device, "y": packed},
            {
                "batches": x.count,
                "batch_stride": x.rows * x.columns,
                "rows": x.rows,
                "padded_rows": padded_rows,
                "columns": x.columns,
                "row_stride": 1 if x.transposed else x.columns,
                "column_stride": x.rows if x.transposed else 1,
            },
            grid.spec,
            grid.count,
        )
    )
    return packed
