"""Gather: elements of an axis, picked by index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.regions import Region, copy_region, region_view
from vkconv.ops.registry import operator
from vkconv.ops.shapes import normalise_axis


@operator("Gather", since=(1, 11, 13))
class Gather(Operator):
    """y[..., *k, ...] = x[..., indices[k], ...] with ``indices`` (any shape) in place of ``axis``.

    Negative indices count from the end. Constant indices are checked; computed ones that lie
    outside are clamped, on the device and here, since no data may read out of bounds.
    """

    axis: int = 0
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})

    def infer(self, x: Value, indices: Value) -> TensorType:
        axis = normalise_axis(self.axis, len(x.dims))
        size = x.dims[axis]
        picked = indices.array
        if picked is not None and picked.size and (picked.min() < -size or picked.max() >= size):
            raise InvalidModelError(f"an index is outside [{-size}, {size - 1}] of axis {axis}")
        if size == 0 and indices.known_type.size:
            raise InvalidModelError(f"axis {axis} is empty")
        return TensorType(x.dtype, (*x.dims[:axis], *indices.dims, *x.dims[axis + 1 :]))

    def reference(self, x: Array, indices: Array) -> Array:
        axis = normalise_axis(self.axis, x.ndim)
        size = x.shape[axis]
        wrapped = np.where(indices < 0, indices + size, indices)
        return np.take(x, np.clip(wrapped, 0, max(size - 1, 0)), axis=axis)

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        node = outputs[0].producer
        indices = None if node is None else node.inputs[1]
        region = None if indices is None else self._region(x.shape, indices.array)
        found = None if region is None else region_view(x, region)
        return None if found is None else (replace(found, shape=outputs[0].dims),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, indices), y = inputs, outputs[0].on_device
        assert x is not None and indices is not None
        source = ctx.operand(x, "linear")
        region = self._region(x.shape, indices.array)
        if region is not None:
            return copy_region(ctx, source, replace(y, shape=region.sizes), region)
        if y.span == 0:
            return []
        axis = normalise_axis(self.axis, len(x.shape))
        outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        count = math.prod(indices.shape)
        grid = spread(ctx.caps, count * inner, outer)
        return [
            ctx.dispatch(
                "gather",
                {"x": source, "indices": ctx.operand(indices, "linear"), "y": y},
                {"outer": outer, "axis_size": x.shape[axis], "count": count, "inner": inner},
                {**grid.spec, "inner_is_one": int(inner == 1)},
                grid.count,
            )
        ]

    def _region(self, shape: tuple[int, ...], indices: Array | None) -> Region | None:
        """The slice that constant indices amount to, when they are evenly spaced."""
        axis = normalise_axis(self.axis, len(shape))
        if indices is None or indices.size == 0:
            return None
        picked = np.where(indices < 0, indices + shape[axis], indices).reshape(-1).astype(np.int64)
        step = int(picked[1] - picked[0]) if len(picked) > 1 else 1
        if step == 0 or not (np.diff(picked) == step).all():
            return None
        rank = len(shape)
        starts, sizes, steps = [0] * rank, list(shape), [1] * rank
        starts[axis], sizes[axis], steps[axis] = int(picked[0]), len(picked), step
        return Region(tuple(starts), tuple(sizes), tuple(steps))
