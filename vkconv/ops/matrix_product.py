"""Products of matrices as dispatches of the kernel ``matrix_product``: packing of operands, tiles, column ranges.

The kernel wants whole vec4s along K in ``a`` and along N in ``b``. Constants are packed so when the plan is made;
computed operands that do not lie so (transposed, odd sizes, odd offsets) are packed by a dispatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES, Dispatch, View
from vkconv.ir import Array
from vkconv.ops.activation_codes import Activation
from vkconv.ops.base import Lowering, Tensor, ceil_div
from vkconv.ops.broadcasting import Walk, linear_walk
from vkconv.ops.grids import spread
from vkconv.ops.packing import pad_axis

#: batch dimensions of the kernel, after merging
BATCH_DIMENSIONS = 3
#: vec4s along K that one invocation's loop may have: llvmpipe ends loops after 65535 iterations
LONGEST_DEPTH = 60_000


@dataclass(frozen=True)
class Matrices:
    """An operand: a batch of matrices (rows, columns), ``transposed`` in memory or not."""

    tensor: Tensor
    batch: tuple[int, ...]
    rows: int
    columns: int
    transposed: bool = False

    def array(self, source: Array) -> Array:
        """A constant's values as (batch, rows, columns)."""
        if self.transposed:
            return source.reshape(-1, self.columns, self.rows).transpose(0, 2, 1)
        return source.reshape(-1, self.rows, self.columns)

    @property
    def count(self) -> int:
        return prod(self.batch)


@dataclass(frozen=True)
class Bias:
    """What is added: ``beta * view[m * row + n * column]``."""

    view: View
    row: int
    column: int
    beta: float = 1.0


@dataclass(frozen=True)
class Epilogue:
    """What follows the product: alpha, bias, an element-wise function."""

    alpha: float = 1.0
    bias: Bias | None = None
    activation: tuple[Activation, float, float] = (Activation.NONE, 0.0, 0.0)


@dataclass(frozen=True)
class Tile:
    """Rows and vec4 columns per invocation, lanes along N, and the slices of K that a workgroup adds up."""

    rows: int
    columns: int
    lanes: int
    slices: int = 1

    @property
    def panel(self) -> int:
        """vec4 columns per workgroup."""
        return self.columns * self.lanes


def select_tile(caps: DeviceCaps, rows: int, columns: int, depth: int) -> Tile:
    """The tile for a product of ``rows`` x ``columns`` (scalars) with ``depth`` vec4s along K."""
    columns4 = ceil_div(columns, 4)
    tall = ceil_div(rows, ceil_div(rows, 8))
    if caps.kind == "cpu":
        # a workgroup is one thread: its 8 lanes are the vector unit, more of them only spill
        return Tile(tall, 2 if columns4 > 8 else 1, 8)
    most = min(caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    wide = 32 if columns4 >= 32 else 16 if columns4 >= 16 else 8
    if rows <= 4:
        # few rows: the lanes along N alone would leave a GPU idle, so K is shared out as well
        slices = 1
        while slices < 8 and slices * 2 * wide <= most and depth >= slices * 16:
            slices *= 2
        return Tile(rows, 1, wide, slices)
    return Tile(min(tall, 4) if rows > 8 else tall, 2 if columns4 >= 2 * wide else 1, wide)


def merge_batches(
    batch: Sequence[int], a: Sequence[int], b: Sequence[int]
) -> Walk | None:
    """The batch dimensions with the steps of a and b counted in matrices; None where they are too many."""
    walk = linear_walk(batch, [a, b])
    return walk.padded(BATCH_DIMENSIONS) if len(walk.size) <= BATCH_DIMENSIONS else None


def lower_product(
    ctx: Lowering,
    a: Matrices,
    b: Matrices,
    y: View,
    batch: tuple[int, ...],
    epilogue: Epilogue,
) -> list[Dispatch]:
    """y (batch, a.rows, b.columns) = a b, with the epilogue."""
    if not y.span:
        return []
    if b.count == 1 and a.count == prod(batch) and not a.transposed:
        # one b for all: the batch is more rows
        a = Matrices(a.tensor, (), a.rows * a.count, a.columns)
        b = Matrices(b.tensor, (), b.rows, b.columns, b.transposed)
        batch = ()
    walk = merge_batches(batch, a.batch, b.batch)
    assert walk is not None
    depth = ceil_div(a.columns, 4)
    tile = select_tile(ctx.caps, a.rows, b.columns, depth)
    steps: list[Dispatch] = []
    left = _pack_left(ctx, a, steps)
    dispatches = []
    for first, last in _column_ranges(ctx.caps, b, depth, tile.panel):
        right, panel, matrix = _pack_right(ctx, b, first, last, tile, steps)
        product = _Launch(a.rows, last - first, depth, panel, panel * depth * 4, first)
        a_step = [s * a.rows * depth for s in walk.strides[0]]
        b_step = [s * matrix for s in walk.strides[1]]
        dispatches.append(
            product.dispatch(ctx, left, right, y, tile, epilogue, (walk.size, a_step, b_step), b.columns)
        )
    return steps + dispatches


@dataclass(frozen=True)
class _Launch:
    """One dispatch: all rows, ``columns`` columns from ``first_column`` on."""

    rows: int
    columns: int
    depth: int
    panel: int
    panel_stride: int
    first_column: int

    def dispatch(
        self,
        ctx: Lowering,
        a: View,
        b: View,
        y: View,
        tile: Tile,
        epilogue: Epilogue,
        batch: tuple[Sequence[int], Sequence[int], Sequence[int]],
        all_columns: int,
    ) -> Dispatch:
        bias = epilogue.bias
        code, activation_alpha, activation_beta = epilogue.activation
        whole = all_columns % 4 == 0 and y.offset % 4 == 0
        unit = 4 if whole else 1
        bias_view = None
        if bias is not None:
            view = bias.view
            bias_view = View(
                view.storage,
                (view.span - self.first_column * bias.column,),
                view.dtype,
                "linear",
                view.offset + self.first_column * bias.column,
            )
        push: dict[str, int | float | Sequence[int]] = {
            "rows": self.rows,
            "columns": self.columns,
            "depth": self.depth,
            "panel": self.panel,
            "panel_stride": self.panel_stride,
            "y_row": all_columns // unit,
            "y_column": self.first_column // unit,
            "y_step": self.rows * all_columns // unit,
            "batch_size": batch[0],
            "a_step": batch[1],
            "b_step": batch[2],
            "bias_row": 0 if bias is None else bias.row,
            "bias_column": 0 if bias is None else bias.column,
            "alpha": epilogue.alpha,
            "beta": 0.0 if bias is None else bias.beta,
            "activation_alpha": activation_alpha,
            "activation_beta": activation_beta,
        }
        if bias is None:
            push["bias_offset"] = 0
        return ctx.dispatch(
            "matrix_product",
            {"a": a, "b": b, "bias": bias_view, "y": y},
            push,
            {
                "local_size_x": tile.lanes,
                "local_size_y": tile.slices,
                "tile_rows": tile.rows,
                "tile_columns": tile.columns,
                "has_bias": int(bias is not None),
                "activation": int(code),
            },
            _grid(ctx.caps, ceil_div(self.columns, 4 * tile.panel), ceil_div(self.rows, tile.rows), prod(batch[0])),
            width="vec4" if whole else "scalar",
            **_sharing(ctx.caps, a, b, tile),
        )


def _grid(caps: DeviceCaps, x: int, y: int, z: int) -> tuple[int, int, int]:
    """Workgroups within the device's limits; the kernel loops over the rows and batches left."""
    limit = caps.max_workgroup_count
    return x, min(y, limit[1]), min(z, limit[2])


def _sharing(caps: DeviceCaps, a: View, b: View, tile: Tile) -> dict[str, str]:
    """Variant axes: on CPU drivers the lanes share the rows of a by shuffles where they can."""
    shuffles = caps.kind == "cpu" and caps.subgroup_shuffle and caps.subgroup_size >= 8
    texels = caps.storage_texel and caps.max_storage_texel_buffers >= 2
    fits = max(a.span, b.span) // 4 < caps.max_texel_buffer_elements - 64
    if shuffles and texels and fits and 1 < tile.rows <= 8 and tile.lanes % 8 == 0:
        return {"rows": "shuffled", "access": "storage_texel"}
    return {"rows": "own"}


def _column_ranges(
    caps: DeviceCaps, b: Matrices, depth: int, panel: int
) -> list[tuple[int, int]]:
    """The columns of each dispatch: all, unless a constant b is larger than a storage buffer may be."""
    per_column4 = max(depth, 1) * 4 * 4 * ELEMENT_BYTES
    most = caps.max_storage_buffer_range // (per_column4 * panel) * panel * 4
    if b.tensor.array is None or b.count > 1 or b.columns <= most or not most:
        return [(0, b.columns)]
    return [(first, min(first + most, b.columns)) for first in range(0, b.columns, most)]


def _pack_left(ctx: Lowering, a: Matrices, steps: list[Dispatch]) -> View:
    """a with rows of whole vec4s."""
    array = a.tensor.array
    if array is not None:
        source = array
        tag = f"left {a.rows}x{a.columns} {a.transposed}"
        return ctx.prepack(array, tag, lambda: pad_axis(a.array(source), 2, 4))
    view = a.tensor.on_device
    if not a.transposed and a.columns % 4 == 0 and view.offset % 4 == 0:
        return view
    return _pack_on_device(ctx, a, a.rows, steps, "a in vec4s")


def _pack_right(
    ctx: Lowering, b: Matrices, first: int, last: int, tile: Tile, steps: list[Dispatch]
) -> tuple[View, int, int]:
    """b's columns from ``first`` to ``last``: the view, vec4 columns per panel, and vec4s per matrix."""
    depth = ceil_div(b.rows, 4)
    columns4 = ceil_div(last - first, 4)
    array = b.tensor.array
    if array is not None:
        source = array
        panel = min(tile.panel, columns4)
        panels = ceil_div(columns4, panel)

        def pack() -> Array:
            part = pad_axis(b.array(source)[:, :, first:last], 1, 4)
            part = pad_axis(part.astype(np.float32), 2, 4 * panel)
            count, rows, _ = part.shape
            return np.ascontiguousarray(
                part.reshape(count, rows, panels, 4 * panel).transpose(0, 2, 1, 3)
            )

        tag = f"right {b.rows}x{b.columns} {b.transposed} {first}:{last} by {panel}"
        return ctx.prepack(array, tag, pack), panel, panels * depth * 4 * panel
    view = b.tensor.on_device
    aligned = b.rows % 4 == 0 and b.columns % 4 == 0 and view.offset % 4 == 0
    if b.transposed or not aligned:
        view = _pack_on_device(ctx, b, depth * 4, steps, "b in vec4s")
    return view, columns4, depth * 4 * columns4


def _pack_on_device(
    ctx: Lowering, x: Matrices, padded_rows: int, steps: list[Dispatch], name: str
) -> View:
    """A copy in scratch memory: row-major, columns padded to whole vec4s, rows to ``padded_rows``."""
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
