"""Products of matrices as dispatches of the kernel ``matrix_product``: tiles, batches, columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES, Dispatch, View
from vkconv.ops.activation_codes import Activation
from vkconv.ops.broadcasting import Walk, linear_walk
from vkconv.ops.lowering import Lowering
from vkconv.ops.matrix_operands import Matrices, pack_left, pack_right
from vkconv.ops.shapes import ceil_div

#: batch dimensions of the kernel, after merging
BATCH_DIMENSIONS = 3
#: vec4s along K that one invocation's loop may have: llvmpipe ends loops after 65535 iterations
LONGEST_DEPTH = 60_000


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
    """Rows and vec4 columns per invocation, lanes along N, and the slices of K that a workgroup
    adds up."""

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
    if caps.kind == "cpu":
        # a workgroup is one thread, and its 8 lanes the vector unit. Measured at 512^3, GFLOP/s of
        # one Zen 4 core under lavapipe: 16x2 25.6, 16x1 23.8, 8x2 22-23 with shuffled rows; 8x2
        # 19.6, 16x1 16.6, 4x2 15.5 without
        most_rows = 16 if _shuffles(caps) else 8
        tall = ceil_div(rows, ceil_div(rows, most_rows))
        return Tile(tall, 2 if columns4 > 8 else 1, 8)
    tall = ceil_div(rows, ceil_div(rows, 8))
    most = min(caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    wide = 32 if columns4 >= 32 else 16 if columns4 >= 16 else 8
    if rows <= 4:
        # few rows: the lanes along N alone would leave a GPU idle, so K is shared out as well
        slices = 1
        while slices < 8 and slices * 2 * wide <= most and depth >= slices * 16:
            slices *= 2
        return Tile(rows, 1, wide, slices)
    return Tile(min(tall, 4) if rows > 8 else tall, 2 if columns4 >= 2 * wide else 1, wide)


def merge_batches(batch: Sequence[int], a: Sequence[int], b: Sequence[int]) -> Walk | None:
    """The batch dimensions with the steps of a and b counted in matrices; None where they are too
    many."""
    walk = linear_walk(batch, [a, b])
    return walk.padded(BATCH_DIMENSIONS) if len(walk.size) <= BATCH_DIMENSIONS else None


def lower_product(
    ctx: Lowering,
    a: Matrices,
    b: Matrices,
    y: View,
    batch: tuple[int, ...],
    epilogue: Epilogue,
    pitch: int = 0,
) -> list[Dispatch]:
    """The dispatches of y (batch, a.rows, b.columns) = a b, with the epilogue. ``pitch``: the
    elements from row to row of y where that is more than the columns, a multiple of 4; what lies
    between is written as well, with anything."""
    if not y.span:
        return []
    if b.count == 1 and a.count == prod(batch) and not a.transposed:
        # one b for all: the batch is more rows
        a = Matrices(a.tensor, (), a.rows * a.count, a.columns, pitch=a.pitch)
        b = Matrices(b.tensor, (), b.rows, b.columns, b.transposed)
        batch = ()
    walk = merge_batches(batch, a.batch, b.batch)
    assert walk is not None
    depth = ceil_div(a.columns, 4)
    tile = select_tile(ctx.caps, a.rows, b.columns, depth)
    steps: list[Dispatch] = []
    left = pack_left(ctx, a, steps)
    dispatches = []
    for first, last in _column_ranges(ctx.caps, b, depth, tile.panel):
        right, panel, matrix = pack_right(ctx, b, first, last, tile.panel, steps)
        product = _Launch(a.rows, last - first, depth, panel, panel * depth * 4, first)
        a_step = [s * a.rows * depth for s in walk.strides[0]]
        b_step = [s * matrix for s in walk.strides[1]]
        dispatches.append(
            product.dispatch(
                ctx, left, right, y, tile, epilogue, (walk.size, a_step, b_step), pitch or b.columns
            )
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
        pitch: int,
    ) -> Dispatch:
        bias = epilogue.bias
        code, activation_alpha, activation_beta = epilogue.activation
        whole = pitch % 4 == 0 and y.offset % 4 == 0
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
            "y_row": pitch // unit,
            "y_column": self.first_column // unit,
            "y_step": self.rows * pitch // unit,
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
            _grid(
                ctx.caps,
                ceil_div(self.columns, 4 * tile.panel),
                ceil_div(self.rows, tile.rows),
                prod(batch[0]),
            ),
            width="vec4" if whole else "scalar",
            **_sharing(ctx.caps, a, b, tile),
        )


def _grid(caps: DeviceCaps, x: int, y: int, z: int) -> tuple[int, int, int]:
    """Workgroups within the device's limits; the kernel loops over the rows and batches left."""
    limit = caps.max_workgroup_count
    return x, min(y, limit[1]), min(z, limit[2])


def _shuffles(caps: DeviceCaps) -> bool:
    """Whether lanes can share the rows of a by shuffles, which pays on CPU drivers."""
    texels = caps.storage_texel and caps.max_storage_texel_buffers >= 2
    return caps.kind == "cpu" and caps.subgroup_shuffle and caps.subgroup_size >= 8 and texels


def _sharing(caps: DeviceCaps, a: View, b: View, tile: Tile) -> dict[str, str]:
    """Variant axes of a dispatch: shuffles need the texel buffers to hold a and b."""
    fits = max(a.span, b.span) // 4 < caps.max_texel_buffer_elements - 64
    if _shuffles(caps) and fits and tile.rows > 1 and tile.lanes % 8 == 0:
        return {"rows": "shuffled", "access": "storage_texel"}
    return {"rows": "own"}


def _column_ranges(caps: DeviceCaps, b: Matrices, depth: int, panel: int) -> list[tuple[int, int]]:
    """The columns of each dispatch: all, unless a constant b is larger than a storage buffer may
    be."""
    per_column4 = max(depth, 1) * 4 * 4 * ELEMENT_BYTES
    most = caps.max_storage_buffer_range // (per_column4 * panel) * panel * 4
    if b.tensor.array is None or b.count > 1 or b.columns <= most or not most:
        return [(0, b.columns)]
    return [(first, min(first + most, b.columns)) for first in range(0, b.columns, most)]
