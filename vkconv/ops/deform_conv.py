"""DeformConv: convolution whose taps are displaced, and may be scaled, at every output pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.conv_epilogue import Epilogue, check_residual
from vkconv.ops.conv_geometry import check_operands, conv_axes
from vkconv.ops.deform_conv_kernels import Operands, lower_deform_conv
from vkconv.ops.deform_conv_problem import DeformProblem
from vkconv.ops.fused_activation import apply_activation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.sampling import interpolate, linear_taps
from vkconv.ops.window import Axis


@operator("DeformConv", since=(19, 22))
class DeformConv(Operator):
    """y[n,o,p] = b[o] + sum over i, k of w[o,i,k] m[n,d,k,p] x[n, i, p stride - pad + k dilation +
    offset[n,d,k,:,p]], where x between pixels is (bi)linear and zero beyond the map.

    x (N, C, spatial...), w (M, C / group, kernel...), offset (N, D K r, out...) and mask m (N, D K,
    out...) with D offset groups d of C / D channels each, K taps k and r spatial axes; b (M).
    J. Dai et al., "Deformable Convolutional Networks", 2017, eq. 2-4; X. Zhu et al., "Deformable
    ConvNets v2", 2018, eq. 1.
    """

    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    offset_group: int = 1
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 3})

    def axes(self, x: Sequence[int], weight: Sequence[int]) -> tuple[Axis, ...]:
        return conv_axes(x[2:], weight[2:], self.strides, self.pads, self.dilations, "NOTSET")

    def infer(
        self,
        x: Value,
        weight: Value,
        offset: Value,
        bias: Value | None = None,
        mask: Value | None = None,
    ) -> TensorType:
        kernel = check_operands(x, weight, self.kernel_shape)
        n, channels = x.dims[:2]
        out_channels, group_channels = weight.dims[:2]
        if self.group < 1 or out_channels % self.group or group_channels * self.group != channels:
            raise InvalidModelError(
                f"input of {channels} channels, weights of shape {weight.dims} and "
                f"group {self.group} do not fit"
            )
        if self.offset_group < 1 or channels % self.offset_group:
            raise InvalidModelError(
                f"{channels} channels do not make offset_group {self.offset_group} equal parts"
            )
        out = tuple(a.out for a in self.axes(x.dims, weight.dims))
        taps = self.offset_group * int(np.prod(kernel))
        expected = {
            "offset": (offset, (n, self.offset_channels(offset, taps * len(kernel)), *out)),
            "bias": (bias, (out_channels,)),
            "mask": (mask, (n, self.mask_channels(mask, taps), *out)),
        }
        for name, (value, shape) in expected.items():
            if value is not None and value.dims != shape:
                raise InvalidModelError(f"{name} has shape {value.dims}, expected {shape}")
        return TensorType(x.dtype, (n, out_channels, *out))

    def offset_channels(self, offset: Value, needed: int) -> int:
        """The channels that ``offset`` should have, ``needed`` of which are read."""
        return needed

    def mask_channels(self, mask: Value | None, needed: int) -> int:
        return needed

    def reference(
        self,
        x: Array,
        weight: Array,
        offset: Array,
        bias: Array | None = None,
        mask: Array | None = None,
    ) -> Array:
        axes = self.axes(x.shape, weight.shape)
        n, channels = x.shape[:2]
        out_channels, group_channels, *kernel = weight.shape
        out = [a.out for a in axes]
        taps, parts = int(np.prod(kernel)), self.offset_group
        work = np.float64 if x.dtype == np.float64 else np.float32
        maps: Array = x.astype(work, copy=False)
        moves: Array = offset.astype(work, copy=False).reshape(
            n, parts, taps, len(axes), int(np.prod(out))
        )
        kernels = weight.astype(work, copy=False).reshape(
            self.group, out_channels // self.group, group_channels, taps
        )
        factors: Array | None = None
        if mask is not None:
            factors = mask.astype(work, copy=False).reshape(n, parts, taps, 1, moves.shape[-1])
        total = np.zeros((n, self.group, out_channels // self.group, moves.shape[-1]), work)
        corners = np.meshgrid(*(np.arange(a.out) * a.stride - a.begin for a in axes), indexing="ij")
        per_part = channels // parts
        for tap, place in enumerate(product(*(range(k) for k in kernel))):
            samples = []
            for part in range(parts):
                positions = [
                    (corner.reshape(-1) + k * a.dilation).astype(work) + moves[:, part, tap, axis]
                    for axis, (a, k, corner) in enumerate(zip(axes, place, corners, strict=True))
                ]
                chosen = maps[:, part * per_part : (part + 1) * per_part]
                found = interpolate(
                    chosen,
                    [linear_taps(p, a.size) for p, a in zip(positions, axes, strict=True)],
                )
                if factors is not None:
                    found = found * factors[:, part, tap]
                samples.append(found)
            sampled = np.concatenate(samples, axis=1).reshape(
                n, self.group, group_channels, moves.shape[-1]
            )
            total += kernels[..., tap] @ sampled
        y = total.reshape(n, out_channels, *out)
        if bias is not None:
            y = y + bias.astype(work).reshape(-1, *[1] * len(axes))
        return np.asarray(y.astype(x.dtype, copy=False))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        if x is not None and len(x.dims) != 4:
            return f"DeformConv over {len(x.dims) - 2} spatial axes has no kernel"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, weight, offset, bias, mask = [*inputs, None, None][:5]
        assert x is not None and weight is not None and offset is not None
        problem, operands = self.problem(x, weight), Operands(offset, mask)
        return lower_deform_conv(ctx, problem, x, weight, bias, operands, outputs[0], Epilogue())

    def problem(self, x: Tensor, weight: Tensor) -> DeformProblem:
        axis_y, axis_x = self.axes(x.shape, weight.shape)
        batch, channels = x.shape[:2]
        groups = (self.group, self.offset_group)
        return DeformProblem(batch, channels, weight.shape[0], *groups, axis_y, axis_x)

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        weight = inputs[1]
        assert weight is not None
        return 2 * outputs[0].known_type.size * int(np.prod(weight.dims[1:]))


@operator("DeformConv", since=(1,), domain="vkconv")
class FusedDeformConv(DeformConv):
    """DeformConv with the epilogue of a fused Conv: activation(y + r), or activation(y) + r when
    ``residual`` is "last". Offsets and mask are read from channel ``offset_channel`` and
    ``mask_channel`` of their inputs on, the mask through an activation of its own."""

    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0
    residual: str = ""
    offset_channel: int = 0
    mask_channel: int = 0
    mask_activation: int = int(Activation.NONE)
    mask_alpha: float = 0.0
    mask_beta: float = 0.0

    def infer(
        self,
        x: Value,
        weight: Value,
        offset: Value,
        bias: Value | None = None,
        mask: Value | None = None,
        residual: Value | None = None,
    ) -> TensorType:
        y = super().infer(x, weight, offset, bias, mask)
        check_residual(self.residual, residual, y)
        return y

    def offset_channels(self, offset: Value, needed: int) -> int:
        return _at_least(offset.dims[1], self.offset_channel, needed)

    def mask_channels(self, mask: Value | None, needed: int) -> int:
        return needed if mask is None else _at_least(mask.dims[1], self.mask_channel, needed)

    def reference(
        self,
        x: Array,
        weight: Array,
        offset: Array,
        bias: Array | None = None,
        mask: Array | None = None,
        residual: Array | None = None,
    ) -> Array:
        taps = self.offset_group * int(np.prod(weight.shape[2:]))
        first = self.offset_channel
        offset = offset[:, first : first + taps * (weight.ndim - 2)]
        if mask is not None:
            mask = mask[:, self.mask_channel : self.mask_channel + taps]
            function = Activation(self.mask_activation)
            mask = apply_activation(function, mask, self.mask_alpha, self.mask_beta)
        return self.epilogue().apply(super().reference(x, weight, offset, bias, mask), residual)

    def epilogue(self, residual: Tensor | None = None) -> Epilogue:
        numbers = (self.activation_alpha, self.activation_beta)
        return Epilogue(self.activation, *numbers, self.residual, residual)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, weight, offset, bias, mask, residual = [*inputs, None, None, None][:6]
        assert x is not None and weight is not None and offset is not None
        function = (self.mask_activation, self.mask_alpha, self.mask_beta)
        operands = Operands(offset, mask, self.offset_channel, self.mask_channel, function)
        epilogue, problem = self.epilogue(residual), self.problem(x, weight)
        return lower_deform_conv(ctx, problem, x, weight, bias, operands, outputs[0], epilogue)


def _at_least(channels: int, first: int, needed: int) -> int:
    """``channels`` where ``needed`` of them from ``first`` on exist, else the fewest that would
    do."""
    if first < 0:
        raise InvalidModelError(f"operands begin at channel {first}")
    return max(channels, first + needed)
