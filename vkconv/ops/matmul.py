"""MatMul: numpy's matrix product, with its rules for vectors and batches; and its fused form,
which passes make."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary import require_same_dtype
from vkconv.ops.fused_activation import apply_activation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matrix_operands import Matrices
from vkconv.ops.matrix_product import (
    LONGEST_DEPTH,
    Bias,
    Epilogue,
    lower_product,
    merge_batches,
)
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


class MatrixProduct(Operator):
    """What plain and fused MatMul share."""

    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    splits_constants: ClassVar[bool] = True

    def infer_product(self, a: Value, b: Value) -> TensorType:
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

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        a, b = inputs[:2]
        assert a is not None and b is not None
        left, right = matrix_shapes(a.dims, b.dims)
        batch = broadcast_shapes(left[:-2], right[:-2])
        if merge_batches(batch, left[:-2], right[:-2]) is None:
            return "its batch dimensions do not merge into three"
        return too_deep(left[-1])

    def epilogue(self, ctx: Lowering, bias: Tensor | None) -> Epilogue:
        return Epilogue()

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        a, b, bias = (*inputs, None)[:3]
        assert a is not None and b is not None
        left, right = matrix_shapes(a.shape, b.shape)
        return lower_product(
            ctx,
            Matrices(a, left[:-2], left[-2], left[-1]),
            Matrices(b, right[:-2], right[-2], right[-1]),
            outputs[0].on_device,
            broadcast_shapes(left[:-2], right[:-2]),
            self.epilogue(ctx, bias),
        )

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        a = inputs[0]
        return 0 if a is None else 2 * prod(outputs[0].dims) * a.dims[-1]


@operator("MatMul", since=(1, 9, 13))
class MatMul(MatrixProduct):
    """y[..., m, n] = sum over k of a[..., m, k] b[..., k, n], the leading dimensions broadcast.

    A vector a counts as one row, a vector b as one column, and that dimension leaves the result.
    """

    def infer(self, a: Value, b: Value) -> TensorType:
        return self.infer_product(a, b)

    def reference(self, a: Array, b: Array) -> Array:
        return product(a, b)


@operator("MatMul", since=(1,), domain="vkconv")
class FusedMatMul(MatrixProduct):
    """MatMul with an epilogue: activation(a b + bias), the bias one element or one per column."""

    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0

    def infer(self, a: Value, b: Value, bias: Value | None = None) -> TensorType:
        y = self.infer_product(a, b)
        if bias is not None:
            require_same_dtype(a, bias)
            columns = 1 if len(b.dims) == 1 else y.dims[-1]
            if len(bias.dims) != 1 or bias.dims[0] not in (1, columns):
                raise InvalidModelError(f"bias has shape {bias.dims}, expected ({columns},)")
        return y

    def reference(self, a: Array, b: Array, bias: Array | None = None) -> Array:
        y = product(a, b)
        if bias is not None:
            y = y + bias if b.ndim > 1 else y + bias[0]
        return apply_activation(
            Activation(self.activation),
            np.asarray(y),
            self.activation_alpha,
            self.activation_beta,
        )

    def epilogue(self, ctx: Lowering, bias: Tensor | None) -> Epilogue:
        after = (Activation(self.activation), self.activation_alpha, self.activation_beta)
        if bias is None:
            return Epilogue(activation=after)
        column = 1 if bias.shape[0] > 1 else 0
        return Epilogue(bias=Bias(ctx.operand(bias, "linear"), 0, column), activation=after)


def product(a: Array, b: Array) -> Array:
    """numpy's product; float16 is summed in float32."""
    if a.dtype == np.float16:
        return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32))).astype(a.dtype)
    return np.asarray(np.matmul(a, b))


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
