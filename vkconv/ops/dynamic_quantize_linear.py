"""DynamicQuantizeLinear: quantisation to uint8 by the range that a tensor turns out to have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.quantize_linear import Granularity, lower_quantize
from vkconv.ops.reduction_kernels import Combine, Reduction, lower_reduction, merge_axes, too_long
from vkconv.ops.registry import operator


@operator("DynamicQuantizeLinear", since=(11,))
class DynamicQuantizeLinear(Operator):
    """scale = (max(x, 0) - min(x, 0)) / 255, zero_point = round(-min(x, 0) / scale), y = x
    quantised by them.

    Where x is zero everywhere the scale is 1.
    """

    device_dtypes: ClassVar[frozenset[str]] = frozenset({"float32"})
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"uint8"})

    def infer(self, x: Value) -> tuple[TensorType, ...]:
        if 0 in x.dims:
            raise InvalidModelError("an empty tensor has no range")
        return TensorType("uint8", x.dims), TensorType("float32", ()), TensorType("uint8", ())

    def reference(self, x: Array) -> tuple[Array, ...]:
        least, most = np.float32(min(x.min(), 0)), np.float32(max(x.max(), 0))
        size = np.float32(most - least)
        scale = np.float32(1) if most == least else np.float32(size / np.float32(255))
        zero = np.rint(np.clip(-np.float32(least / scale), 0, 255))
        y = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
        return (y, np.asarray(scale), np.asarray(zero, np.uint8))[: self.output_count]

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        shape = outputs[0].dims
        if too_long(Reduction(Combine.MAX), merge_axes(shape, tuple(range(len(shape))))):
            return "the tensor is too long for one invocation's loops"
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (tensor,) = inputs
        assert tensor is not None
        x, y = ctx.operand(tensor, "linear"), outputs[0].on_device
        axes = tuple(range(len(x.shape)))
        low, high = (
            View(ctx.scratch(1, name).storage, (), "float32", "linear") for name in ("low", "high")
        )
        scale = outputs[1].on_device if len(outputs) > 1 else ctx.scratch(1, "scale")
        zero = outputs[2].on_device if len(outputs) > 2 else ctx.scratch(1, "zero point")
        grid = spread(ctx.caps, 1)
        return [
            *lower_reduction(ctx, Reduction(Combine.MIN), x, low, axes),
            *lower_reduction(ctx, Reduction(Combine.MAX), x, high, axes),
            ctx.dispatch(
                "quantization_range",
                {"low": low, "high": high, "scale": scale, "zero_point": zero},
                {},
                grid.spec,
                grid.count,
            ),
            *lower_quantize(ctx, x, scale, zero, y, Granularity(1, 1, y.span, 1, (0, 0, 0))),
        ]
