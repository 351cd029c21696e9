"""MatMul: numpy's matrix product, with its rules for vectors and batches."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.base import FLOATS, Lowering, Operator, Tensor, broadcast_shapes, operator
from vkconv.ops.binary import require_same_dtype
from vkconv.ops.matrix_operands import Matrices
from vkconv.ops.matrix_product import (
    LONGEST_DEPTH,
    Epilogue,
    lower_product,
    merge_batches,
)


@operator("MatMul", since=(1, 9, 13))
class MatMul(Operator):
    """y[..., m, n] = sum over k of a[..., m, k] b[..., k, n], the leading dimensions broadcast.

    A vector a counts as one row, a vector b as one column, and that dimension leaves the result.
    """

    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    splits_constants: ClassVar[bool] = True

    def infer(self, a: Value, b: Value) -> TensorType:
        require_same_dtype(a, b)
        if not a.dims or not b.dims:
            raise InvalidModelError("an input is a scalar")
        left, right = matrix_shapes(a.dims, b.dims)
        if left[-1] != right[-2]:
            raise InvalidModelError(
                f"shapes {a.dims} and {b.dims} do not multiply: {left[-1]} against {right[-2]}"
            )
        batch = broadcast_shapes(left[:-2], right[:-2])
        rows = () if len(a.dims) == 1 else (left[-2],)
        columns = () if len(b.dims) == 1 else (right[-1],)
        return TensorType(a.dtype, batch + rows + columns)

    def reference(self, a: Array, b: Array) -> Array:
        if a.dtype == np.float16:
            return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32))).astype(a.dtype)
        return np.asarray(np.matmul(a, b))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        a, b = inputs
        assert a is not None and b is not None
        left, right = matrix_shapes(a.dims, b.dims)
        batch = broadcast_shapes(left[:-2], right[:-2])
        if merge_batches(batch, left[:-2], right[:-2]) is None:
            return "its batch dimensions do not merge into three"
        return too_deep(left[-1])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        a, b = inputs
        assert a is not None and b is not None
        left, right = matrix_shapes(a.shape, b.shape)
        return lower_product(
            ctx,
            Matrices(a, left[:-2], left[-2], left[-1]),
            Matrices(b, right[:-2], right[-2], right[-1]),
            outputs[0].on_device,
            broadcast_shapes(left[:-2], right[:-2]),
            Epilogue(),
        )

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        a = inputs[0]
        return 0 if a is None else 2 * prod(outputs[0].dims) * a.dims[-1]


def matrix_shapes(
    a: tuple[int, ...], b: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes with vectors made matrices."""
    return (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b


def too_deep(depth: int) -> str | None:
    """Why the kernel can't sum over ``depth`` products, or None."""
    if not depth:
        return "it sums over nothing"
    if depth > 4 * LONGEST_DEPTH:
        return f"{depth} products per result are more than one invocation's loop may have"
    return None
