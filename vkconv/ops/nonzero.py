"""NonZero: where the elements other than zero are; and Compress, which picks slices by a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.cumulative import cumulate
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Bound, Operator, UnknownShapeError
from vkconv.ops.picking import pick_slices
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div, normalise_axis

#: dimensions that place_nonzero.comp has push constants for
MOST_DIMS = 8


@operator("NonZero", since=(9, 13))
class NonZero(Operator):
    """y[:, j] = the coordinates of the j-th element of x other than zero, in row-major order."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, x: Value) -> TensorType:
        if x.dims and not x.known_type.size:
            return TensorType("int64", (len(x.dims), 0))
        if x.array is not None:
            return TensorType("int64", (len(x.dims), int(np.count_nonzero(x.array))))
        raise UnknownShapeError("how many elements are not zero depends on them")

    def bound(self, x: Value) -> Bound:
        return Bound(TensorType("int64", (len(x.dims), x.known_type.size)), 1)

    def reference(self, x: Array) -> Array:
        # a scalar has no coordinates; numpy refuses it
        found = np.nonzero(x) if x.ndim else np.zeros((0, int(x != 0)))
        return np.array(found, np.int64)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        assert x is not None
        if outputs[0].known_type.size and len(outputs) == 1:
            return "its input is constant"
        if not 1 <= len(x.dims) <= MOST_DIMS:
            return f"no kernel for rank {len(x.dims)}"
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        return nonzero(ctx, ctx.operand(x, "linear"), y, outputs[1].on_device) if y.span else []


def nonzero(ctx: Lowering, x: View, y: View, found: View) -> list[Dispatch]:
    """Dispatches of y (rank of x, room) = coordinates of what is not zero in x; found = how many
    there are."""
    # about as many pieces as elements in each: then no pass is much longer than the others
    piece = min(max(16, int(x.span**0.5)), 1024)
    pieces = ceil_div(x.span, piece)
    counts = replace(ctx.scratch(pieces, "counts"), dtype="int32")
    ends = replace(ctx.scratch(pieces, "running totals"), dtype="int32")
    push = {"count": x.span, "piece": piece, "pieces": pieces}
    grid = spread(ctx.caps, pieces)
    spec = {**grid.spec, "is_float": int(not x.is_integer)}
    rank = len(x.shape)
    return [
        ctx.dispatch("count_nonzero", {"x": x, "counts": counts}, push, spec, grid.count),
        *cumulate(ctx, counts, ends, (1, pieces, 1)),
        ctx.dispatch(
            "place_nonzero",
            {"x": x, "ends": ends, "y": y, "found": found},
            {**push, "room": y.shape[1], "size": [*x.shape, *[1] * (MOST_DIMS - rank)]},
            {**spec, "rank": rank},
            grid.count,
        ),
    ]


@operator("Compress", since=(9, 11, 28))
class Compress(Operator):
    """y = the slices of x along ``axis`` (without one the elements of x, flattened) where the
    condition holds; it may be shorter than the axis."""

    axis: int | None = None
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def _view(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape with the axis that is compressed."""
        return (prod(shape),) if self.axis is None else tuple(shape)

    def _axis(self, shape: Sequence[int]) -> int:
        return 0 if self.axis is None else normalise_axis(self.axis, len(shape))

    def infer(self, x: Value, condition: Value) -> TensorType:
        if condition.dtype != "bool" or len(condition.dims) != 1:
            raise InvalidModelError(f"the condition is {condition.known_type}, not a row of bool")
        bound = self.bound(x, condition)
        if not bound.type.dims[bound.axis]:
            return bound.type
        if condition.array is None:
            raise UnknownShapeError("how many slices are picked depends on the condition")
        shape = list(bound.type.dims)
        shape[bound.axis] = int(np.count_nonzero(condition.array[: shape[bound.axis]]))
        return TensorType(x.dtype, tuple(shape))

    def bound(self, x: Value, condition: Value) -> Bound:
        axis = self._axis(x.dims)
        shape = list(self._view(x.dims))
        shape[axis] = min(shape[axis], condition.known_type.size)
        return Bound(TensorType(x.dtype, tuple(shape)), axis)

    def reference(self, x: Array, condition: Array) -> Array:
        axis = self._axis(x.shape)
        whole = x.reshape(self._view(x.shape))
        picked = np.nonzero(condition[: whole.shape[axis]])[0]
        return np.take(whole, picked, axis)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return None if outputs[0].known_type.size or len(outputs) == 1 else "the input is empty"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, condition), y = inputs, outputs[0].on_device
        assert x is not None and condition is not None
        if not y.span:
            return []
        source = ctx.operand(x, "linear")
        source = replace(source, shape=self._view(source.shape))
        axis = self._axis(source.shape)
        room = y.shape[axis]
        if condition.array is not None:
            array = condition.array
            indices = ctx.prepack(array, "true", lambda: np.nonzero(array)[0].astype(np.int32))
            return pick_slices(ctx, source, replace(indices, shape=(room,)), y, axis)
        # the rest of a longer condition counts for nothing
        mask = replace(ctx.operand(condition, "linear"), shape=(min(room, source.shape[axis]),))
        picked = replace(ctx.scratch(room, "picked"), shape=(1, room), dtype="int32")
        return [
            *nonzero(ctx, mask, picked, outputs[1].on_device),
            # beyond the count the indices are whatever lies there; the kernel clamps them
            *pick_slices(ctx, source, replace(picked, shape=(room,)), y, axis),
        ]
