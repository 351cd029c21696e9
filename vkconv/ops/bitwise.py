"""Functions of the bits of integers: And, Or, Xor, Not and shifts; the kernel ``bitwise``,
linear."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.binary import require_same_dtype, too_many_dimensions
from vkconv.ops.broadcasting import linear_walk, walk_grid
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


class Bitwise(IntEnum):
    """``BITWISE_<name>`` of ``shaders/bitwise.comp`` (a test compares the two)."""

    AND = 0
    OR = 1
    XOR = 2
    NOT = 3
    LEFT = 4
    RIGHT = 5


#: int64 may hold what int32 does not
_DTYPES = frozenset({"int32", "int16", "int8", "uint16", "uint8"})


class BitwiseOperator(Operator):
    """y = f(a, b), a and b broadcast against each other."""

    device_dtypes: ClassVar[frozenset[str]] = _DTYPES

    def function(self) -> Bitwise:
        raise NotImplementedError

    def infer(self, a: Value, b: Value) -> TensorType:
        require_same_dtype(a, b)
        return TensorType(a.dtype, broadcast_shapes(a.dims, b.dims))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_many_dimensions(inputs, outputs)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        a, b = (ctx.operand(x, "linear") for x in inputs if x is not None)
        return lower_bitwise(ctx, self.function(), a, b, outputs[0].on_device)


def lower_bitwise(ctx: Lowering, function: Bitwise, a: View, b: View, y: View) -> list[Dispatch]:
    """Dispatches of y = f(a, b) for linear views of integers that broadcast to y's shape."""
    if not y.span:
        return []
    walk = linear_walk(y.shape, (a.shape, b.shape)).padded()
    grid = walk_grid(ctx.caps, walk)
    return [
        ctx.dispatch(
            "bitwise",
            {"a": a, "b": b, "y": y},
            {"size": walk.size, "a_stride": walk.strides[0], "b_stride": walk.strides[1]},
            {
                **grid.spec,
                "kind": int(function),
                "bits": min(np.dtype(y.dtype).itemsize * 8, 32),
                "is_signed": int(not y.dtype.startswith("u")),
            },
            grid.count,
        )
    ]


@operator("BitwiseAnd", since=(18,))
class BitwiseAnd(BitwiseOperator):
    """y = a & b."""

    def function(self) -> Bitwise:
        return Bitwise.AND

    def reference(self, a: Array, b: Array) -> Array:
        return np.bitwise_and(a, b)


@operator("BitwiseOr", since=(18,))
class BitwiseOr(BitwiseOperator):
    """y = a | b."""

    def function(self) -> Bitwise:
        return Bitwise.OR

    def reference(self, a: Array, b: Array) -> Array:
        return np.bitwise_or(a, b)


@operator("BitwiseXor", since=(18,))
class BitwiseXor(BitwiseOperator):
    """y = a ^ b."""

    def function(self) -> Bitwise:
        return Bitwise.XOR

    def reference(self, a: Array, b: Array) -> Array:
        return np.bitwise_xor(a, b)


@operator("BitwiseNot", since=(18,))
class BitwiseNot(Operator):
    """y = ~x."""

    device_dtypes: ClassVar[frozenset[str]] = _DTYPES

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        return np.bitwise_not(x)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,) = inputs
        assert x is not None
        source = ctx.operand(x, "linear")
        return lower_bitwise(ctx, Bitwise.NOT, source, source, outputs[0].on_device)


@operator("BitShift", since=(11, 28))
class BitShift(BitwiseOperator):
    """y = a << b or a >> b, by ``direction``; signed types, shifted arithmetically, since version
    28.

    A shift by a negative number, or by as many bits as the type has, leaves the extended sign
    (right) or 0.
    """

    direction: str

    def function(self) -> Bitwise:
        return Bitwise.LEFT if self.direction == "LEFT" else Bitwise.RIGHT

    def infer(self, a: Value, b: Value) -> TensorType:
        if self.direction not in ("LEFT", "RIGHT"):
            raise InvalidModelError(f"direction is '{self.direction}', not LEFT or RIGHT")
        return super().infer(a, b)

    def reference(self, a: Array, b: Array) -> Array:
        bits = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < bits)
        amount = np.where(inside, b, 0).astype(a.dtype)
        if self.direction == "LEFT":
            return np.where(inside, np.left_shift(a, amount), 0).astype(a.dtype)
        fill = np.where(a < 0, -1, 0).astype(a.dtype)
        return np.asarray(np.where(inside, np.right_shift(a, amount), fill))
