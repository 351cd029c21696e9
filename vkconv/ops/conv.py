"""Conv: convolution over one to three spatial axes, with groups; and its fused form, which passes
make."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.conv_epilogue import Epilogue, check_residual
from vkconv.ops.conv_geometry import check_operands, conv_axes
from vkconv.ops.conv_kernels import lower_conv
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.window import Axis


class Convolution(Operator):
    """What plain and fused Conv share."""

    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    stores_linear: ClassVar[bool] = True
    auto_pad: str
    dilations: tuple[int, ...] | None
    group: int
    kernel_shape: tuple[int, ...] | None
    pads: tuple[int, ...] | None
    strides: tuple[int, ...] | None

    def axes(self, x: Sequence[int], weight: Sequence[int]) -> tuple[Axis, ...]:
        return conv_axes(x[2:], weight[2:], self.strides, self.pads, self.dilations, self.auto_pad)

    def infer_conv(self, x: Value, weight: Value, bias: Value | None) -> TensorType:
        check_operands(x, weight, self.kernel_shape)
        out_channels, group_channels = weight.dims[:2]
        if self.group < 1 or out_channels % self.group or group_channels * self.group != x.dims[1]:
            raise InvalidModelError(
                f"input of {x.dims[1]} channels, weights of shape {weight.dims} and "
                f"group {self.group} do not fit"
            )
        if bias is not None and bias.dims != (out_channels,):
            raise InvalidModelError(f"bias has shape {bias.dims}, expected ({out_channels},)")
        spatial = tuple(a.out for a in self.axes(x.dims, weight.dims))
        return TensorType(x.dtype, (x.dims[0], out_channels, *spatial))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        if x is not None and len(x.dims) > 5:
            return f"Conv over {len(x.dims) - 2} spatial axes has no kernel"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        weight = inputs[1]
        assert weight is not None
        per_output = int(np.prod(weight.dims[1:]))
        return 2 * outputs[0].known_type.size * per_output


@operator("Conv", since=(1, 11, 22))
class Conv(Convolution):
    """y[n,o,p] = b[o] + sum over i, k of w[o,i,k] x[n, g(o) ic + i, p stride - pad + k dilation].

    x (N, C, spatial...), w (M, C / group, kernel...), b (M); zero padding; y (N, M, spatial...).
    """

    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def infer(self, x: Value, weight: Value, bias: Value | None = None) -> TensorType:
        return self.infer_conv(x, weight, bias)

    def reference(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return convolve(x, weight, bias, self.axes(x.shape, weight.shape), self.group)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, weight, bias = [*inputs, None][:3]
        assert x is not None and weight is not None
        axes = self.axes(x.shape, weight.shape)
        return lower_conv(ctx, x, weight, bias, outputs[0], axes, self.group, Epilogue())


@operator("Conv", since=(1,), domain="vkconv")
class FusedConv(Convolution):
    """Conv with an epilogue: activation(conv + r), or activation(conv) + r when ``residual`` is
    "last". ``scale`` (N, C, 1...) multiplies the channels of x before."""

    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0
    residual: str = ""

    def infer(
        self,
        x: Value,
        weight: Value,
        bias: Value | None = None,
        residual: Value | None = None,
        scale: Value | None = None,
    ) -> TensorType:
        factors = (*x.dims[:2], *[1] * (len(x.dims) - 2))
        if scale is not None and scale.dims != factors:
            raise InvalidModelError(f"scale has shape {scale.dims}, expected {factors}")
        y = self.infer_conv(x, weight, bias)
        check_residual(self.residual, residual, y)
        return y

    def reference(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        residual: Array | None = None,
        scale: Array | None = None,
    ) -> Array:
        if scale is not None:
            x = x * scale
        y = convolve(x, weight, bias, self.axes(x.shape, weight.shape), self.group)
        return self.epilogue().apply(y, residual)

    def epilogue(self, residual: Tensor | None = None) -> Epilogue:
        numbers = (self.activation_alpha, self.activation_beta)
        return Epilogue(self.activation, *numbers, self.residual, residual)

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        x, scaled = inputs[0], len(inputs) > 4 and inputs[4] is not None
        assert x is not None
        return super().flops(inputs, outputs) + (x.known_type.size if scaled else 0)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, weight, bias, residual, scale = [*inputs, None, None, None][:5]
        assert x is not None and weight is not None
        epilogue, axes = self.epilogue(residual), self.axes(x.shape, weight.shape)
        return lower_conv(ctx, x, weight, bias, outputs[0], axes, self.group, epilogue, scale=scale)


def convolve(
    x: Array, weight: Array, bias: Array | None, axes: Sequence[Axis], group: int
) -> Array:
    """The sum over taps: each tap is a strided slice of the padded input times its matrix of
    weights."""
    n, channels = x.shape[:2]
    out_channels = weight.shape[0]
    spatial = tuple(a.out for a in axes)
    work = np.float64 if x.dtype == np.float64 else np.float32
    widths = [(0, 0), (0, 0), *((max(a.begin, 0), max(a.end, 0)) for a in axes)]
    padded = np.pad(x.astype(work, copy=False), widths)
    # negative padding crops
    crop = tuple(slice(-min(a.begin, 0), None) for a in axes)
    padded = padded[(slice(None), slice(None), *crop)]
    grouped: Array = padded.reshape(n, group, channels // group, *padded.shape[2:])
    kernels: Array = weight.astype(work, copy=False).reshape(
        group, out_channels // group, channels // group, *weight.shape[2:]
    )
    count = int(np.prod(spatial))
    total: Array = np.zeros((n, group, out_channels // group, count), work)
    for tap in product(*(range(a.kernel) for a in axes)):
        window: tuple[Any, ...] = tuple(
            slice(k * a.dilation, k * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
            for a, k in zip(axes, tap, strict=True)
        )
        part: Array = grouped[(..., *window)].reshape(n, group, channels // group, count)
        index: tuple[Any, ...] = (..., *tap)
        matrix: Array = kernels[index]
        total += matrix @ part
    y = total.reshape(n, out_channels, *spatial)
    if bias is not None:
        y = y + bias.astype(work, copy=False).reshape(-1, *[1] * len(spatial))
    return np.asarray(y.astype(x.dtype, copy=False))
