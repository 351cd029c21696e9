"""Trilu: the upper or lower triangle of matrices; and EyeLike, which is known from a shape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import DTYPES, Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator


@operator("Trilu", since=(14,))
class Trilu(Operator):
    """y[..., r, c] = x[..., r, c] where c - r >= k (``upper``), or c - r <= k, else 0. k is 0
    unless given."""

    upper: int = 1
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, x: Value, k: Value | None = None) -> TensorType:
        if len(x.dims) < 2:
            raise InvalidModelError(f"a tensor of rank {len(x.dims)} holds no matrices")
        if k is not None and k.known_type.size != 1:
            raise InvalidModelError(f"k has shape {k.dims}, not one element")
        return x.known_type

    def reference(self, x: Array, k: Array | None = None) -> Array:
        diagonal = 0 if k is None else int(k.reshape(-1)[0])
        height, width = x.shape[-2:]
        offset = np.arange(width) - np.arange(height)[:, None]
        inside = offset >= diagonal if self.upper else offset <= diagonal
        return np.where(inside, x, np.zeros((), x.dtype))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, k), y = (*inputs, None)[:2], outputs[0].on_device
        assert x is not None
        if not y.span:
            return []
        matrices, (height, width) = prod(y.shape[:-2]), y.shape[-2:]
        zero = np.zeros(1, np.int32)
        diagonal = ctx.constant(zero, "main diagonal") if k is None else ctx.operand(k, "linear")
        grid = spread(ctx.caps, width, height, matrices)
        return [
            ctx.dispatch(
                "trilu",
                {"x": ctx.operand(x, "linear"), "diagonal": diagonal, "y": y},
                {"matrices": matrices, "height": height, "width": width},
                {**grid.spec, "upper": int(bool(self.upper))},
                grid.count,
            )
        ]


@operator("EyeLike", since=(9, 22))
class EyeLike(Operator):
    """y[r, c] = 1 where c - r == k, else 0, in the shape of x and the type ``dtype`` (a number of
    TensorProto.DataType; that of x by default). Always folded."""

    dtype: int | None = None
    k: int = 0
    needs_types_only: ClassVar[bool] = True

    def infer(self, x: Value) -> TensorType:
        if len(x.dims) != 2:
            raise InvalidModelError(f"the input has rank {len(x.dims)}, not 2")
        return TensorType(self._result(x.dtype), x.dims)

    def _result(self, given: str) -> str:
        if self.dtype is None:
            return given
        name = dict(enumerate(DTYPES, 1)).get(self.dtype, "string")
        if name == "string":
            raise InvalidModelError(f"element type {self.dtype} is not supported")
        return name

    def reference(self, x: Array) -> Array:
        height, width = x.shape
        on = np.arange(width) - np.arange(height)[:, None] == self.k
        return np.asarray(on, self._result(x.dtype.name))
