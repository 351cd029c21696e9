"""OneHot: each index as a row that is "on" in one place."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints, normalise_axis


@operator("OneHot", since=(9, 11, 28))
class OneHot(Operator):
    """y = values[1] where the coordinate along the new ``axis`` of size ``depth`` is the index,
    else values[0].

    Negative indices count from depth; one outside [-depth, depth) turns nothing on.
    """

    axis: int = -1
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, indices: Value, depth: Value, values: Value) -> TensorType:
        size = known_ints(depth, "the input depth")
        if size is None or len(size) != 1 or size[0] < 1:
            raise InvalidModelError(f"the depth is {size}, not a number above 0")
        if values.dims != (2,):
            raise InvalidModelError(f"values have shape {values.dims}, not (2,)")
        axis = normalise_axis(self.axis, len(indices.dims) + 1)
        return TensorType(values.dtype, (*indices.dims[:axis], size[0], *indices.dims[axis:]))

    def reference(self, indices: Array, depth: Array, values: Array) -> Array:
        size = int(depth.reshape(-1)[0])
        axis = normalise_axis(self.axis, indices.ndim + 1)
        with np.errstate(invalid="ignore"):
            whole = np.expand_dims(indices.astype(np.int64), axis)
        places = np.arange(size).reshape(-1, *[1] * (indices.ndim - axis))
        on = np.where(whole < 0, whole + size, whole) == places
        return np.asarray(np.where(on, values[1], values[0]))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (indices, _, values), y = inputs, outputs[0].on_device
        assert indices is not None and values is not None
        if not y.span:
            return []
        axis = normalise_axis(self.axis, len(y.shape))
        split = prod(y.shape[:axis]), y.shape[axis], prod(y.shape[axis + 1 :])
        return one_hot(ctx, ctx.operand(indices, "linear"), ctx.operand(values, "linear"), y, split)


def one_hot(
    ctx: Lowering, indices: View, values: View, y: View, split: tuple[int, int, int]
) -> list[Dispatch]:
    """Dispatches of y[o, d, i] = values[d is indices[o, i]]; ``split`` is (outer, depth, inner)."""
    outer, depth, inner = split
    grid = spread(ctx.caps, depth * inner, outer)
    return [
        ctx.dispatch(
            "one_hot",
            {"indices": indices, "values": values, "y": y},
            {"outer": outer, "depth": depth, "inner": inner},
            {**grid.spec, "float_indices": int(not indices.is_integer)},
            grid.count,
        )
    ]
