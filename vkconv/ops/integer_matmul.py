"""MatMulInteger and QLinearMatMul: matrix products of 8-bit integers with exact sums of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.broadcasting import KERNEL_DIMENSIONS
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matmul import matrix_shapes
from vkconv.ops.matrix_product import merge_batches
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.requantization import (
    centered,
    factor_array,
    lower_requantize,
    requantized,
    require_quantized,
)
from vkconv.ops.shapes import broadcast_shapes, ceil_div

_BYTES = frozenset({"int8", "uint8"})


def product_shape(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The shape of numpy's matmul."""
    if not a or not b:
        raise InvalidModelError("an input is a scalar")
    left, right = matrix_shapes(tuple(a), tuple(b))
    if left[-1] != right[-2]:
        raise InvalidModelError(f"shapes {tuple(a)} and {tuple(b)} do not multiply")
    batch = broadcast_shapes(left[:-2], right[:-2])
    rows = () if len(a) == 1 else (left[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return batch + rows + columns


def row_shape(shape: Sequence[int], a: Sequence[int], what: str) -> tuple[int, ...]:
    """The shape as which one number, one per row (a vector counts as a column), or (..., M, 1)
    meets a."""
    if prod(shape) == 1:
        return ()
    own = (shape[0], 1) if len(shape) == 1 and len(a) > 1 else tuple(shape)
    if broadcast_shapes(own, a) != tuple(a):
        raise InvalidModelError(f"{what} of shape {tuple(shape)} does not broadcast to {tuple(a)}")
    return own


def column_shape(shape: Sequence[int], b: Sequence[int], what: str) -> tuple[int, ...]:
    """The shape as which one number, one per column, or (..., 1, N) meets b."""
    if prod(shape) == 1:
        return ()
    if broadcast_shapes(shape, b) != tuple(b):
        raise InvalidModelError(f"{what} of shape {tuple(shape)} does not broadcast to {tuple(b)}")
    return tuple(shape)


def integer_product(a: Array, b: Array, a_zero: Array | None, b_zero: Array | None) -> Array:
    """(a - a_zero) (b - b_zero) in int32."""
    left, right = a.astype(np.int32), b.astype(np.int32)
    if a_zero is not None:
        left = left - a_zero.reshape(row_shape(a_zero.shape, a.shape, "the zero point"))
    if b_zero is not None:
        right = right - b_zero.reshape(column_shape(b_zero.shape, b.shape, "the zero point"))
    return np.asarray(np.matmul(left, right))


def too_large(a: Value, b: Value, broadcast: Sequence[Sequence[int]]) -> str | None:
    """Why the kernels can't multiply these, or None."""
    left, right = matrix_shapes(a.dims, b.dims)
    batch = broadcast_shapes(left[:-2], right[:-2])
    if merge_batches(batch, left[:-2], right[:-2]) is None:
        return "its batch dimensions do not merge into three"
    if left[-1] > MOST_ITERATIONS:
        return f"{left[-1]} products per result are more than one invocation's loop may have"
    if max(len(a.dims), len(b.dims), *(len(s) for s in broadcast)) > KERNEL_DIMENSIONS:
        return f"its broadcasting has more than {KERNEL_DIMENSIONS} dimensions"
    return None


def lower_integer_product(
    ctx: Lowering,
    a: Tensor,
    b: Tensor,
    a_zero: Tensor | None,
    b_zero: Tensor | None,
    y: View,
) -> list[Dispatch]:
    """Dispatches of y = (a - a_zero) (b - b_zero), int32."""
    if not y.span:
        return []
    steps: list[Dispatch] = []
    rows = () if a_zero is None else row_shape(a_zero.shape, a.shape, "the zero point")
    columns = () if b_zero is None else column_shape(b_zero.shape, b.shape, "the zero point")
    left, right = matrix_shapes(a.shape, b.shape)
    batch = broadcast_shapes(left[:-2], right[:-2])
    walk = merge_batches(batch, left[:-2], right[:-2])
    assert walk is not None
    m, k, n = left[-2], left[-1], right[-1]
    grid = spread(ctx.caps, n, ceil_div(m, 4), prod(batch))
    operands = {
        "a": centered(ctx, a, a_zero, rows, steps),
        "b": centered(ctx, b, b_zero, columns, steps),
        "y": y,
    }
    push: dict[str, int | list[int] | tuple[int, ...]] = {
        "rows": m,
        "columns": n,
        "depth": k,
        "batch_size": walk.size,
        "a_step": [s * m * k for s in walk.strides[0]],
        "b_step": [s * k * n for s in walk.strides[1]],
    }
    steps.append(ctx.dispatch("integer_matmul", operands, push, grid.spec, grid.count))
    return steps


@operator("MatMulInteger", since=(10,))
class MatMulInteger(Operator):
    """y = (a - a_zero) (b - b_zero) in int32; zero points of all, of rows of a, of columns of b."""

    device_dtypes: ClassVar[frozenset[str]] = _BYTES
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"int32"})

    def infer(
        self, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None
    ) -> TensorType:
        shape = product_shape(a.dims, b.dims)
        if a_zero is not None:
            row_shape(a_zero.dims, a.dims, "a_zero_point")
        if b_zero is not None:
            column_shape(b_zero.dims, b.dims, "b_zero_point")
        return TensorType("int32", shape)

    def reference(
        self, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
    ) -> Array:
        return integer_product(a, b, a_zero, b_zero)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        a, b = inputs[:2]
        assert a is not None and b is not None
        return too_large(a, b, [])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        a, b, a_zero, b_zero = (*inputs, None, None)[:4]
        assert a is not None and b is not None
        return lower_integer_product(ctx, a, b, a_zero, b_zero, outputs[0].on_device)


@operator("QLinearMatMul", since=(10, 21))
class QLinearMatMul(Operator):
    """y = saturate(round(sum * a_scale b_scale / y_scale) + y_zero), sum = (a - a_zero) (b -
    b_zero)."""

    device_dtypes: ClassVar[frozenset[str]] = _BYTES | FLOATS

    def infer(
        self,
        a: Value,
        a_scale: Value,
        a_zero: Value,
        b: Value,
        b_scale: Value,
        b_zero: Value,
        y_scale: Value,
        y_zero: Value,
    ) -> TensorType:
        require_quantized(a, a_zero, b, b_zero, y_zero)
        for value in (a_scale, a_zero):
            row_shape(value.dims, a.dims, f"'{value.name}'")
        for value in (b_scale, b_zero):
            column_shape(value.dims, b.dims, f"'{value.name}'")
        for value in (y_scale, y_zero):
            if value.known_type.size != 1:
                raise InvalidModelError(
                    f"'{value.name}' has shape {value.dims}, expected one number"
                )
        return TensorType(y_zero.dtype, product_shape(a.dims, b.dims))

    def reference(
        self,
        a: Array,
        a_scale: Array,
        a_zero: Array,
        b: Array,
        b_scale: Array,
        b_zero: Array,
        y_scale: Array,
        y_zero: Array,
    ) -> Array:
        rows = row_shape(a_scale.shape, a.shape, "a_scale")
        columns = column_shape(b_scale.shape, b.shape, "b_scale")
        factor = factor_array(a_scale.reshape(rows), b_scale.reshape(columns), y_scale)
        return requantized(integer_product(a, b, a_zero, b_zero), factor, y_zero)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        a, a_scale, _, b, b_scale = inputs[:5]
        assert a is not None and b is not None and a_scale is not None and b_scale is not None
        vector = min(len(a.dims), len(b.dims)) == 1
        if vector and max(a_scale.known_type.size, b_scale.known_type.size) > 1:
            return "scales of rows or columns of a vector"
        return too_large(a, b, [outputs[0].dims])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        present = [t for t in inputs if t is not None]
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = present
        y = outputs[0].on_device
        sums = View(ctx.scratch(y.span, "sums").storage, y.shape, "int32", "linear")
        shapes = (
            row_shape(a_scale.shape, a.shape, "a_scale"),
            column_shape(b_scale.shape, b.shape, "b_scale"),
        )
        return [
            *lower_integer_product(ctx, a, b, a_zero, b_zero, sums),
            *lower_requantize(ctx, sums, (a_scale, b_scale, y_scale), shapes, y_zero, y),
        ]
