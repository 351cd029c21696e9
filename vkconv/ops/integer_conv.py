"""ConvInteger and QLinearConv: convolutions of 8-bit integers with exact sums of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.conv_geometry import conv_axes
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.requantization import (
    centered,
    factor_array,
    lower_requantize,
    requantized,
    require_quantized,
)
from vkconv.ops.window import Axis


class IntegerConvolution(Operator):
    """What the two share: attributes as Conv's, x (N, C, spatial...), w (M, C / group,
    kernel...)."""

    auto_pad: str
    dilations: tuple[int, ...] | None
    group: int
    kernel_shape: tuple[int, ...] | None
    pads: tuple[int, ...] | None
    strides: tuple[int, ...] | None

    def axes(self, x: Sequence[int], w: Sequence[int]) -> tuple[Axis, ...]:
        return conv_axes(x[2:], w[2:], self.strides, self.pads, self.dilations, self.auto_pad)

    def infer_shape(
        self, x: Value, w: Value, per_channel: Sequence[Value | None]
    ) -> tuple[int, ...]:
        if len(x.dims) < 3 or len(w.dims) != len(x.dims) or min(w.dims) < 1:
            raise InvalidModelError(
                f"input of shape {x.dims} and weights of shape {w.dims} do not fit"
            )
        if self.kernel_shape and tuple(self.kernel_shape) != w.dims[2:]:
            raise InvalidModelError(
                f"kernel_shape is {list(self.kernel_shape)}, the weights are {w.dims}"
            )
        channels = w.dims[0]
        if self.group < 1 or channels % self.group or w.dims[1] * self.group != x.dims[1]:
            raise InvalidModelError(f"{x.dims[1]} channels, weights {w.dims}, group {self.group}")
        for value in per_channel:
            if value is not None and value.known_type.size != 1 and value.dims != (channels,):
                raise InvalidModelError(
                    f"'{value.name}' has shape {value.dims}, expected ({channels},)"
                )
        return (x.dims[0], channels, *(a.out for a in self.axes(x.dims, w.dims)))

    def sums(self, x: Array, w: Array, x_zero: Array | None, w_zero: Array | None) -> Array:
        """The convolution in int32."""
        axes = self.axes(x.shape, w.shape)
        source, weights = x.astype(np.int32), w.astype(np.int32)
        if x_zero is not None:
            source = source - int(x_zero.reshape(()))
        if w_zero is not None:
            weights = weights - w_zero.astype(np.int32).reshape(-1, *[1] * (w.ndim - 1))
        n, channels = x.shape[:2]
        spatial = tuple(a.out for a in axes)
        padded = np.pad(source, [(0, 0), (0, 0), *((max(a.begin, 0), max(a.end, 0)) for a in axes)])
        crop = tuple(slice(-min(a.begin, 0), None) for a in axes)
        padded = padded[(slice(None), slice(None), *crop)]
        grouped: Array = padded.reshape(n, self.group, channels // self.group, *padded.shape[2:])
        kernels: Array = weights.reshape(self.group, -1, *w.shape[1:])
        total: Array = np.zeros((n, self.group, w.shape[0] // self.group, prod(spatial)), np.int32)
        for tap in product(*(range(a.kernel) for a in axes)):
            window: tuple[Any, ...] = tuple(
                slice(k * a.dilation, k * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
                for a, k in zip(axes, tap, strict=True)
            )
            part: Array = grouped[(..., *window)].reshape(
                n, self.group, channels // self.group, prod(spatial)
            )
            index: tuple[Any, ...] = (..., *tap)
            matrix: Array = kernels[index]
            total += matrix @ part
        return total.reshape(n, w.shape[0], *spatial)

    def too_large(self, x: Value, w: Value) -> str | None:
        if len(x.dims) > 5:
            return f"a convolution over {len(x.dims) - 2} spatial axes has no kernel"
        if prod(w.dims[1:]) > MOST_ITERATIONS:
            return "the weights of one output are too many for one invocation's loops"
        return None

    def lower_sums(
        self,
        ctx: Lowering,
        x: Tensor,
        w: Tensor,
        zeros: tuple[Tensor | None, Tensor | None],
        bias: Tensor | None,
        y: View,
    ) -> list[Dispatch]:
        """Dispatches of y = the convolution plus bias, int32."""
        if not y.span:
            return []
        steps: list[Dispatch] = []
        x_zero, w_zero = zeros
        w_shape = (-1 if w_zero is None else prod(w_zero.shape), *[1] * (len(w.shape) - 1))
        views = {
            "x": centered(ctx, x, x_zero, (), steps),
            "w": centered(ctx, w, w_zero, w_shape, steps),
            "bias": None if bias is None else ctx.operand(bias, "linear"),
            "y": y,
        }
        axes = self.axes(x.shape, w.shape)
        axes = (Axis(1, 1, 1, 1, 1, 0, 0),) * (3 - len(axes)) + axes
        grid = spread(ctx.caps, prod(y.shape[2:]), y.shape[1], y.shape[0])
        push: dict[str, int | list[int]] = {
            "batches": y.shape[0],
            "channels": x.shape[1],
            "group_channels": w.shape[1],
            "out_channels": y.shape[1],
            "group_out": y.shape[1] // self.group,
            "size": [a.size for a in axes],
            "out_size": [a.out for a in axes],
            "kernel": [a.kernel for a in axes],
            "stride": [a.stride for a in axes],
            "dilation": [a.dilation for a in axes],
            "pad": [a.begin for a in axes],
        }
        spec = {**grid.spec, "has_bias": int(bias is not None)}
        return [*steps, ctx.dispatch("integer_conv", views, push, spec, grid.count)]


@operator("ConvInteger", since=(10,))
class ConvInteger(IntegerConvolution):
    """y = convolution of x - x_zero with w - w_zero in int32; w_zero of all or per output
    channel."""

    device_dtypes: ClassVar[frozenset[str]] = frozenset({"int8", "uint8"})
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"int32"})
    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def infer(
        self, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None
    ) -> TensorType:
        if x_zero is not None and x_zero.known_type.size != 1:
            raise InvalidModelError(f"x_zero_point has shape {x_zero.dims}, expected one number")
        return TensorType("int32", self.infer_shape(x, w, [w_zero]))

    def reference(
        self, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None
    ) -> Array:
        return self.sums(x, w, x_zero, w_zero)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x, w = inputs[:2]
        assert x is not None and w is not None
        return self.too_large(x, w)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, w, x_zero, w_zero = (*inputs, None, None)[:4]
        assert x is not None and w is not None
        return self.lower_sums(ctx, x, w, (x_zero, w_zero), None, outputs[0].on_device)


@operator("QLinearConv", since=(10,))
class QLinearConv(IntegerConvolution):
    """y = saturate(round((conv + bias) * x_scale w_scale / y_scale) + y_zero), conv as
    ConvInteger's."""

    device_dtypes: ClassVar[frozenset[str]] = frozenset({"int8", "uint8", "int32", "float32"})
    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def infer(
        self,
        x: Value,
        x_scale: Value,
        x_zero: Value,
        w: Value,
        w_scale: Value,
        w_zero: Value,
        y_scale: Value,
        y_zero: Value,
        bias: Value | None = None,
    ) -> TensorType:
        require_quantized(x, x_zero, w, w_zero, y_zero)
        for value in (x_scale, x_zero, y_scale, y_zero):
            if value.known_type.size != 1:
                raise InvalidModelError(
                    f"'{value.name}' has shape {value.dims}, expected one number"
                )
        shape = self.infer_shape(x, w, [w_scale, w_zero])
        if bias is not None and bias.dims != (w.dims[0],):
            raise InvalidModelError(f"bias has shape {bias.dims}, expected ({w.dims[0]},)")
        return TensorType(y_zero.dtype, shape)

    def reference(
        self,
        x: Array,
        x_scale: Array,
        x_zero: Array,
        w: Array,
        w_scale: Array,
        w_zero: Array,
        y_scale: Array,
        y_zero: Array,
        bias: Array | None = None,
    ) -> Array:
        sums = self.sums(x, w, x_zero, w_zero)
        per_channel = (-1, *[1] * (x.ndim - 2))
        if bias is not None:
            sums = sums + bias.reshape(per_channel)
        factor = factor_array(x_scale.reshape(()), w_scale.reshape(per_channel), y_scale)
        return requantized(sums, factor, y_zero)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x, w = inputs[0], inputs[3]
        assert x is not None and w is not None
        return self.too_large(x, w)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (
            t for t in inputs[:8] if t is not None
        )
        bias = inputs[8] if len(inputs) > 8 else None
        y = outputs[0].on_device
        sums = View(ctx.scratch(y.span, "sums").storage, y.shape, "int32", "linear")
        per_channel = (prod(w_scale.shape), *[1] * (len(y.shape) - 2))
        scales = (x_scale, w_scale, y_scale)
        return [
            *self.lower_sums(ctx, x, w, (x_zero, w_zero), bias, sums),
            *lower_requantize(ctx, sums, scales, ((), per_channel), y_zero, y),
        ]
