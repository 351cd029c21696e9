"""Gemm: a product of two matrices, scaled, plus a bias; the fully connected layers of exported
models; and its fused form, which passes make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary import in_float32, require_same_dtype
from vkconv.ops.fused_activation import apply_activation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matmul import too_deep
from vkconv.ops.matrix_operands import Matrices
from vkconv.ops.matrix_product import Bias, Epilogue, lower_product
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


class GeneralProduct(Operator):
    """What plain and fused Gemm share."""

    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    splits_constants: ClassVar[bool] = True
    alpha: float
    beta: float
    transA: int
    transB: int

    def after(self) -> tuple[Activation, float, float]:
        """Code, alpha and beta of the activation that follows."""
        return Activation.NONE, 0.0, 0.0

    def sizes(self, a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int]:
        """(M, K, N)."""
        if len(a) != 2 or len(b) != 2:
            raise InvalidModelError(
                f"inputs of shape {tuple(a)} and {tuple(b)} are not both matrices"
            )
        m, k = reversed(a) if self.transA else a
        depth, n = reversed(b) if self.transB else b
        if k != depth:
            raise InvalidModelError(
                f"shapes {tuple(a)} and {tuple(b)} do not multiply: {k} against {depth}"
            )
        return m, k, n

    def infer(self, a: Value, b: Value, c: Value | None = None) -> TensorType:
        require_same_dtype(a, b)
        m, _, n = self.sizes(a.dims, b.dims)
        if c is not None:
            require_same_dtype(a, c)
            if broadcast_shapes(c.dims, (m, n)) != (m, n):
                raise InvalidModelError(f"C of shape {c.dims} does not broadcast to {(m, n)}")
        return TensorType(a.dtype, (m, n))

    def reference(self, a: Array, b: Array, c: Array | None = None) -> Array:
        left, right = in_float32(a), in_float32(b)
        y = np.matmul(left.T if self.transA else left, right.T if self.transB else right)
        if y.dtype.kind == "f":
            y = y * y.dtype.type(self.alpha)
            if c is not None:
                y = y + y.dtype.type(self.beta) * in_float32(c)
        else:
            y = y * int(self.alpha) + (0 if c is None else int(self.beta) * c)
        return self._activated(np.asarray(y).astype(a.dtype))

    def _activated(self, y: Array) -> Array:
        kind, alpha, beta = self.after()
        return apply_activation(kind, y, alpha, beta)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        a, b = inputs[:2]
        assert a is not None and b is not None
        return too_deep(self.sizes(a.dims, b.dims)[1])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        a, b, c = (*inputs, None)[:3]
        assert a is not None and b is not None
        m, k, n = self.sizes(a.shape, b.shape)
        bias = None
        if c is not None and self.beta != 0:
            rows, columns = (1, 1, *c.shape)[-2:]
            bias = Bias(
                ctx.operand(c, "linear"),
                row=columns if rows > 1 else 0,
                column=1 if columns > 1 else 0,
                beta=self.beta,
            )
        return lower_product(
            ctx,
            Matrices(a, (), m, k, bool(self.transA)),
            Matrices(b, (), k, n, bool(self.transB)),
            outputs[0].on_device,
            (),
            Epilogue(self.alpha, bias, self.after()),
        )

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        a, b = inputs[:2]
        if a is None or b is None:
            return 0
        m, k, n = self.sizes(a.dims, b.dims)
        return 2 * m * k * n


@operator("Gemm", since=(1, 6, 7, 9, 11, 13))
class Gemm(GeneralProduct):
    """y (M, N) = alpha a' b' + beta c; a' is a or, with transA, its transpose; c broadcasts to (M,
    N)."""

    alpha: float = 1.0
    beta: float = 1.0
    transA: int = 0
    transB: int = 0
    broadcast: int = 0


@operator("Gemm", since=(1,), domain="vkconv")
class FusedGemm(GeneralProduct):
    """Gemm with an activation behind it."""

    alpha: float = 1.0
    beta: float = 1.0
    transA: int = 0
    transB: int = 0
    broadcast: int = 0
    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0

    def after(self) -> tuple[Activation, float, float]:
        return Activation(self.activation), self.activation_alpha, self.activation_beta
