"""ConvTranspose: transposed convolution over one to three spatial axes; and its fused form, which
passes make."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_geometry import check_operands, transpose_axes
from vkconv.ops.conv_kernels import lower_conv
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.window import Axis


class TransposedConvolution(Operator):
    """What plain and fused ConvTranspose share."""

    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    auto_pad: str
    dilations: tuple[int, ...] | None
    group: int
    kernel_shape: tuple[int, ...] | None
    output_padding: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    pads: tuple[int, ...] | None
    strides: tuple[int, ...] | None

    def axes(self, x: Sequence[int], weight: Sequence[int]) -> tuple[Axis, ...]:
        return transpose_axes(
            x[2:],
            weight[2:],
            self.strides,
            self.pads,
            self.dilations,
            self.auto_pad,
            self.output_padding,
            self.output_shape,
        )

    def infer(self, x: Value, weight: Value, bias: Value | None = None) -> TensorType:
        check_operands(x, weight, self.kernel_shape)
        channels, group_out = weight.dims[:2]
        if self.group < 1 or channels != x.dims[1] or channels % self.group:
            raise InvalidModelError(
                f"input of {x.dims[1]} channels, weights of shape {weight.dims} and "
                f"group {self.group} do not fit"
            )
        if bias is not None and bias.dims != (group_out * self.group,):
            raise InvalidModelError(
                f"bias has shape {bias.dims}, expected ({group_out * self.group},)"
            )
        spatial = tuple(a.out for a in self.axes(x.dims, weight.dims))
        return TensorType(x.dtype, (x.dims[0], group_out * self.group, *spatial))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        if x is not None and len(x.dims) > 5:
            return f"ConvTranspose over {len(x.dims) - 2} spatial axes has no kernel"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        x, weight = inputs[0], inputs[1]
        assert x is not None and weight is not None
        return 2 * x.known_type.size * int(np.prod(weight.dims[1:]))

    def epilogue(self) -> Epilogue:
        return Epilogue()

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, weight, bias = [*inputs, None][:3]
        assert x is not None and weight is not None
        axes = self.axes(x.shape, weight.shape)
        return lower_conv(
            ctx, x, weight, bias, outputs[0], axes, self.group, self.epilogue(), transposed=True
        )


@operator("ConvTranspose", since=(1, 11, 22))
class ConvTranspose(TransposedConvolution):
    """y[n,o,p] = b[o] + sum over i, k with p = s q - pad + k d of w[i,o,k] x[n,i,q].

    x (N, C, spatial...), w (C, M / group, kernel...), b (M); y (N, M, spatial...).
    """

    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    output_padding: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def reference(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return scatter(x, weight, bias, self.axes(x.shape, weight.shape), self.group)


@operator("ConvTranspose", since=(1,), domain="vkconv")
class FusedConvTranspose(TransposedConvolution):
    """ConvTranspose with an activation in its epilogue."""

    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    output_padding: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0

    def epilogue(self) -> Epilogue:
        return Epilogue(self.activation, self.activation_alpha, self.activation_beta)

    def reference(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        y = scatter(x, weight, bias, self.axes(x.shape, weight.shape), self.group)
        return self.epilogue().apply(y)


def scatter(x: Array, weight: Array, bias: Array | None, axes: Sequence[Axis], group: int) -> Array:
    """Each input, times each tap's matrix, is added where it lands; then the padding is cut off."""
    n, channels = x.shape[:2]
    group_out = weight.shape[1]
    work = np.float64 if x.dtype == np.float64 else np.float32
    # everything any tap can reach, from the full output's origin
    full = [
        max((a.size - 1) * a.stride + (a.kernel - 1) * a.dilation + 1, a.begin + a.out)
        for a in axes
    ]
    total: Array = np.zeros((n, group, group_out, *full), work)
    inputs: Array = x.astype(work, copy=False).reshape(n, group, channels // group, -1)
    kernels: Array = weight.astype(work, copy=False).reshape(
        group, channels // group, group_out, *weight.shape[2:]
    )
    for tap in product(*(range(a.kernel) for a in axes)):
        index: tuple[Any, ...] = (..., *tap)
        matrix: Array = np.swapaxes(kernels[index], 1, 2)
        part = (matrix @ inputs).reshape(n, group, group_out, *x.shape[2:])
        place: tuple[Any, ...] = tuple(
            slice(k * a.dilation, k * a.dilation + (a.size - 1) * a.stride + 1, a.stride)
            for a, k in zip(axes, tap, strict=True)
        )
        total[(..., *place)] += part
    # negative padding keeps positions before the origin, which no tap reaches
    before = [(0, 0)] * 3 + [(max(-a.begin, 0), 0) for a in axes]
    total = np.pad(total, before)
    cut: tuple[Any, ...] = tuple(slice(max(a.begin, 0), max(a.begin, 0) + a.out) for a in axes)
    y = total[(..., *cut)].reshape(n, group * group_out, *(a.out for a in axes))
    if bias is not None:
        y = y + bias.astype(work, copy=False).reshape(-1, *[1] * len(axes))
    return np.asarray(y.astype(x.dtype, copy=False))
