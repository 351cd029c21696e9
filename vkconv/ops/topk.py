"""TopK: the k largest or smallest elements along an axis, in order, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.arg_extreme import arg_extreme
from vkconv.ops.gather_elements import gather_elements
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.rows import MANY_ROWS, rows_along
from vkconv.ops.selecting import select_rows, worth_selecting
from vkconv.ops.shapes import known_ints, normalise_axis
from vkconv.ops.sorting import MOST_ELEMENTS, sort_rows

#: so few elements are found one by one, where there are so many rows that every lane has its own
FEW = 8


@operator("TopK", since=(1, 10, 11, 24))
class TopK(Operator):
    """(values, indices): the k best elements along ``axis``, best first, of equal ones that of the
    lower index.

    k is an attribute in version 1, an input since. They come in order whether ``sorted`` or not.
    NaN counts as the largest number.
    """

    k: int | None = None
    axis: int = -1
    largest: int = 1
    sorted: int = 1
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"int64"})

    def infer(self, x: Value, k: Value | None = None) -> tuple[TensorType, TensorType]:
        given = (self.k,) if self.version < 10 else known_ints(k, "the input K")
        if given is None or len(given) != 1 or given[0] is None:
            raise InvalidModelError("k is not one number")
        axis = normalise_axis(self.axis, len(x.dims))
        if not 0 <= given[0] <= x.dims[axis]:
            raise InvalidModelError(f"k is {given[0]}, but axis {axis} has {x.dims[axis]} elements")
        shape = (*x.dims[:axis], given[0], *x.dims[axis + 1 :])
        return TensorType(x.dtype, shape), TensorType("int64", shape)

    def reference(self, x: Array, k: Array | None = None) -> tuple[Array, ...]:
        axis = normalise_axis(self.axis, x.ndim)
        count = (self.k or 0) if k is None else int(k.reshape(-1)[0])
        if self.largest:
            # a stable sort of the reversed array, read backwards: descending, and equal ones still
            # in order
            order = (
                x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
            )
        else:
            order = np.argsort(x, axis, kind="stable")
        indices = np.take(order, np.arange(count), axis).astype(np.int64)
        return (np.take_along_axis(x, indices, axis), indices)[: self.output_count]

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        assert x is not None
        return "too many elements" if x.known_type.size > MOST_ELEMENTS else None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, values = inputs[0], outputs[0].on_device
        assert x is not None
        if not values.span:
            return []
        axis = normalise_axis(self.axis, len(x.shape))
        source = ctx.operand(x, "linear")
        if len(outputs) > 1:
            indices = outputs[1].on_device
        else:
            indices = replace(
                ctx.scratch(values.span, "indices"), shape=values.shape, dtype="int32"
            )
        outer, length, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
        kept, smallest = values.shape[axis], not self.largest
        if kept == 1:
            split = (outer, length, inner)
            found = arg_extreme(ctx, source, indices, split, smallest=smallest, nan_first=False)
            return found + gather_elements(ctx, source, indices, values, axis)
        rows, ascending = outer * inner, bool(smallest)
        if kept <= FEW and rows >= MANY_ROWS and kept * length < MOST_ITERATIONS // 4:
            return _pick_best(
                ctx, source, values, indices, (outer, length, inner), ascending=ascending
            )
        if worth_selecting(length, kept):
            dispatches, picked = select_rows(
                ctx, source, rows, length, inner, kept, ascending=ascending
            )
            elements = replace(picked, shape=(rows * kept,), dtype=source.dtype, offset=rows * kept)
            more, pairs = sort_rows(ctx, elements, rows, kept, 1, kept, ascending=ascending)
            dispatches += more
            source = picked
        else:
            picked = None
            dispatches, pairs = sort_rows(
                ctx, source, rows, length, inner, kept, ascending=ascending
            )
        grid = spread(ctx.caps, kept * inner, outer)
        order = replace(pairs, shape=(rows * kept,), offset=rows * kept)
        dispatches.append(
            ctx.dispatch(
                "pick_sorted",
                {"x": source, "order": order, "values": values, "indices": indices},
                {"outer": outer, "length": length, "inner": inner, "kept": kept},
                {**grid.spec, "picked": int(picked is not None)},
                grid.count,
            )
        )
        return dispatches


def _pick_best(
    ctx: Lowering,
    x: View,
    values: View,
    indices: View,
    split: tuple[int, int, int],
    *,
    ascending: bool,
) -> list[Dispatch]:
    """The best elements of each row of (outer, axis, inner), as many as ``values`` has room for."""
    outer, _, inner = split
    kept = values.span // (outer * inner)
    rows = replace(rows_along(ctx.caps, *split), shared=False)
    grid = rows.grid(ctx.caps)
    strides = (
        {"kept_stride": 0, "kept_row": kept}
        if inner == 1
        else {"kept_stride": kept * inner, "kept_row": 1}
    )
    return [
        ctx.dispatch(
            "pick_best",
            {"x": x, "values": values, "indices": indices},
            {**rows.push, "kept": kept, **strides},
            {**grid.spec, "is_float": int(not x.is_integer), "ascending": int(ascending)},
            grid.count,
        )
    ]
