"""Expand and Tile: elements repeated along axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import Dim, row_major, strided_copy
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes, known_ints


class _Repeating(Operator):
    """What the two have in common: the second input says how often, and must be constant."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        y = outputs[0]
        if y.known_type.size != View(x.storage, x.shape, x.dtype, "linear").span:
            return None
        return (View(x.storage, y.dims, x.dtype, "linear", x.offset),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
        dims = []
        for size, out, source, target in zip(
            shape, y.shape, row_major(shape), row_major(y.shape), strict=True
        ):
            # each axis is a number of repetitions, which read the same elements, of the axis itself
            dims.append(Dim(out // max(size, 1), 0, target * size))
            dims.append(Dim(size, source, target))
        return strided_copy(ctx, ctx.operand(x, "linear"), y, dims)


@operator("Expand", since=(8, 13))
class Expand(_Repeating):
    """y = x broadcast against ``shape`` (both ways, as Add would)."""

    def infer(self, x: Value, shape: Value) -> TensorType:
        wanted = known_ints(shape, "the input shape") or ()
        if min(wanted, default=0) < 0:
            raise InvalidModelError(f"{list(wanted)} is no shape to expand to")
        return TensorType(x.dtype, broadcast_shapes(x.dims, wanted))

    def reference(self, x: Array, shape: Array) -> Array:
        return np.broadcast_to(x, broadcast_shapes(x.shape, tuple(map(int, shape)))).copy()


@operator("Tile", since=(1, 6, 13))
class Tile(_Repeating):
    """y = x repeated ``repeats[i]`` times along axis i; in version 1 (inputs tiles and axis) along
    one axis only."""

    def infer(self, x: Value, repeats: Value, axis: Value | None = None) -> TensorType:
        counts = self._counts(
            len(x.dims),
            known_ints(repeats, "the input repeats"),
            known_ints(axis, "the input axis"),
        )
        return TensorType(x.dtype, tuple(d * r for d, r in zip(x.dims, counts, strict=True)))

    def reference(self, x: Array, repeats: Array, axis: Array | None = None) -> Array:
        along = None if axis is None else tuple(map(int, axis.reshape(-1)))
        return np.tile(x, self._counts(x.ndim, tuple(map(int, repeats.reshape(-1))), along))

    def _counts(
        self, rank: int, repeats: tuple[int, ...] | None, axis: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        counts = repeats or ()
        if axis is not None and len(axis) == len(counts) == 1 and 0 <= axis[0] < rank:
            counts = tuple(counts[0] if i == axis[0] else 1 for i in range(rank))
        if len(counts) != rank or min(counts, default=0) < 0:
            raise InvalidModelError(f"{list(counts)} repeats do not fit {rank} dimensions")
        return counts
