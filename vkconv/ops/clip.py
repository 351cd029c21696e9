"""Relu and Clip: bounds on each element, of floats and of int32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import ARITHMETIC, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4
from vkconv.ops.unary import Unary, lower_unary
from vkconv.ops.unary_int import IntegerFunction, lower_unary_int

_INT32 = np.iinfo(np.int32)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@operator("Relu", since=(1, 6, 13, 14))
class Relu(Unary):
    """y = max(x, 0)."""

    device_dtypes: ClassVar[frozenset[str]] = ARITHMETIC

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.RELU, 0.0, 0.0

    def apply(self, x: Array) -> Array:
        return np.asarray(np.maximum(x, x.dtype.type(0)))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        if x is None or not y.on_device.is_integer:
            return super().lower(ctx, inputs, outputs)
        operand = ctx.operand(x, "linear")
        return lower_unary_int(ctx, operand, y.on_device, IntegerFunction.CLIP, 0, int(_INT32.max))


@operator("Clip", since=(1, 6, 11, 12, 13))
class Clip(Operator):
    """y = min(max(x, low), high). Bounds: attributes before version 11, then optional scalar
    inputs.

    Where low > high, every y is high (stated since version 13).
    """

    device_dtypes: ClassVar[frozenset[str]] = ARITHMETIC
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    overwrites: ClassVar[frozenset[int]] = frozenset({0})
    min: float = -_FLOAT32_MAX
    max: float = _FLOAT32_MAX

    def infer(self, x: Value, low: Value | None = None, high: Value | None = None) -> TensorType:
        for bound in (low, high):
            if bound is not None and bound.known_type.size != 1:
                raise InvalidModelError(
                    f"bound '{bound.name}' has shape {bound.dims}, not a scalar"
                )
        return x.known_type

    def reference(self, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
        if self.version < 11:
            low, high = np.asarray(self.min, x.dtype), np.asarray(self.max, x.dtype)
        y = x if low is None else np.maximum(x, low.reshape(()))
        return np.array(y if high is None else np.minimum(y, high.reshape(())))

    def activation(
        self, low: Array | None = None, high: Array | None = None
    ) -> tuple[Activation, float, float]:
        """The function with its constant bounds, for this kernel and for fusion."""
        if self.version < 11:
            return Activation.CLIP, self.min, self.max
        return (
            Activation.CLIP,
            -np.inf if low is None else float(low.reshape(())),
            np.inf if high is None else float(high.reshape(())),
        )

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        bounds = [None if t is None else t.array for t in (*inputs[1:], None, None)][:2]
        if not y.is_integer:
            return lower_unary(ctx, ctx.operand(x, y.layout), y, *self.activation(*bounds))
        low, high = (
            limit if bound is None else int(bound.reshape(()))
            for bound, limit in zip(bounds, (_INT32.min, _INT32.max), strict=True)
        )
        operand = ctx.operand(x, "linear")
        return lower_unary_int(ctx, operand, y, IntegerFunction.CLIP, int(low), int(high))
