"""Transpose: the dimensions in another order."""

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


@operator("Transpose", since=(1, 13, 21, 23, 24, 25))
class Transpose(Operator):
    """y[i[perm[0]], i[perm[1]], ...] = x[i]; the order is reversed by default."""

    perm: tuple[int, ...] | None = None
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, x: Value) -> TensorType:
        return TensorType(x.dtype, tuple(x.dims[p] for p in self.order(len(x.dims))))

    def reference(self, x: Array) -> Array:
        return np.transpose(x, self.order(x.ndim)).copy()

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        moved = [p for p in self.order(len(x.shape)) if x.shape[p] != 1]
        if moved != sorted(moved):
            return None
        return (View(x.storage, outputs[0].dims, x.dtype, "linear", x.offset),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        source = ctx.operand(x, "linear")
        strides = row_major(x.shape)
        order = self.order(len(x.shape))
        dims = [
            Dim(x.shape[p], strides[p], target)
            for p, target in zip(order, row_major(y.shape), strict=True)
        ]
        return strided_copy(ctx, source, y, dims)

    def order(self, rank: int) -> tuple[int, ...]:
        """The input's dimension that each of the output's is."""
        order = tuple(reversed(range(rank))) if self.perm is None else self.perm
        if sorted(order) != list(range(rank)):
            raise InvalidModelError(f"perm {list(order)} is no order of {rank} dimensions")
        return order
