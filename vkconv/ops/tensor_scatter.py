"""TensorScatter: a key-value cache with the newest entries written into it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import normalise_axis


@operator("TensorScatter", since=(24,))
class TensorScatter(Operator):
    """y = cache, but y[b, ..., writes[b] + s, ...] = update[b, ..., s, ...] along ``axis``, modulo
    its size if mode is "circular". Without writes they are 0. Computed ones are clamped so that the
    update lies inside."""

    axis: int = -2
    mode: str = "linear"
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, cache: Value, update: Value, writes: Value | None = None) -> TensorType:
        axis = self._axis(cache.dims)
        if self.mode not in ("linear", "circular"):
            raise InvalidModelError(f"mode '{self.mode}' is neither linear nor circular")
        room, length = cache.dims[axis], (update.dims + (0,) * len(cache.dims))[axis]
        if update.dims != (*cache.dims[:axis], length, *cache.dims[axis + 1 :]) or length > room:
            raise InvalidModelError(
                f"an update of shape {update.dims} does not fit a cache of {cache.dims}"
            )
        if update.dtype != cache.dtype:
            raise InvalidModelError(f"the update is {update.dtype}, the cache {cache.dtype}")
        if writes is not None and writes.dims != cache.dims[:1]:
            raise InvalidModelError(f"{writes.dims} write indices for a batch of {cache.dims[0]}")
        if writes is not None and writes.array is not None and writes.array.size:
            last = room - (length if self.mode == "linear" else 1)
            if writes.array.min() < 0 or writes.array.max() > last:
                raise InvalidModelError(f"a write index is outside [0, {last}]")
        return cache.known_type

    def _axis(self, shape: Sequence[int]) -> int:
        axis = normalise_axis(self.axis, len(shape))
        if axis == 0:
            raise InvalidModelError("the axis written along is that of the batch")
        return axis

    def reference(self, cache: Array, update: Array, writes: Array | None = None) -> Array:
        axis = self._axis(cache.shape)
        room, length = cache.shape[axis], update.shape[axis]
        y = cache.copy()
        for b in range(len(cache)):
            first = 0 if writes is None else int(writes[b])
            first = first if self.mode == "circular" else min(max(first, 0), room - length)
            place = (slice(None),) * (axis - 1) + (np.arange(first, first + length) % max(room, 1),)
            y[b][place] = update[b]
        return y

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        cache, update, writes = (*inputs, None)[:3]
        assert cache is not None and update is not None
        y = outputs[0].on_device
        if not y.span:
            return []
        axis = self._axis(cache.shape)
        batches, middle = cache.shape[0], prod(cache.shape[1:axis])
        room, inner = cache.shape[axis], prod(cache.shape[axis + 1 :])
        none = np.zeros(batches, np.int32)
        grid = spread(ctx.caps, inner, middle * room, batches)
        return [
            ctx.dispatch(
                "tensor_scatter",
                {
                    "cache": ctx.operand(cache, "linear"),
                    "update": ctx.operand(update, "linear"),
                    "writes": ctx.constant(none, "writes")
                    if writes is None
                    else ctx.operand(writes, "linear"),
                    "y": y,
                },
                {
                    "batches": batches,
                    "middle": middle,
                    "room": room,
                    "length": update.shape[axis],
                    "inner": inner,
                },
                {**grid.spec, "circular": int(self.mode == "circular")},
                grid.count,
            )
        ]
