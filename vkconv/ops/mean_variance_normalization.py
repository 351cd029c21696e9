"""MeanVarianceNormalization: zero mean and unit variance over chosen axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary import lower_binary
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import KERNEL_DIMENSIONS as BROADCAST_DIMENSIONS
from vkconv.ops.channel_statistics import Statistics, normalize_groups, too_many
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.reduction_kernels import (
    KERNEL_DIMENSIONS,
    Combine,
    Post,
    Pre,
    Reduction,
    lower_reduction,
    merge_axes,
    too_long,
)
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4, normalise_axis
from vkconv.ops.unary import lower_unary

#: what the standard's function adds to the standard deviation
EPSILON = 1e-9


@operator("MeanVarianceNormalization", since=(9, 13))
class MeanVarianceNormalization(Operator):
    """y = (x - mean) / (sqrt(variance) + 1e-9), statistics over ``axes``.

    Those of feature maps (all spatial axes, with or without batch and channels) have kernels of
    their own; any others are put together from reductions and broadcasts.
    """

    axes: tuple[int, ...] = (0, 2, 3)

    def infer(self, x: Value) -> TensorType:
        self._axes(len(x.dims))
        return x.known_type

    def _axes(self, rank: int) -> tuple[int, ...]:
        return tuple(sorted({normalise_axis(a, rank) for a in self.axes}))

    def reference(self, x: Array) -> Array:
        axes = self._axes(x.ndim)
        wide = x.astype(np.float64)
        centered = wide - wide.mean(axes, keepdims=True)
        variance = (centered * centered).mean(axes, keepdims=True)
        return np.asarray(centered / (np.sqrt(variance) + EPSILON)).astype(x.dtype)

    def _statistics(self, shape: Sequence[int]) -> Statistics | None:
        """The form of feature maps; None for other axes."""
        axes = self._axes(len(shape))
        if len(shape) < 3 or axes[-(len(shape) - 2) :] != tuple(range(2, len(shape))):
            return None
        return Statistics(
            1 if 1 in axes else shape[1], EPSILON, merged=0 in axes, epsilon_outside=True
        )

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        shape = outputs[0].dims
        how = self._statistics(shape)
        if how is not None:
            return too_many(shape, max(how.groups, 1), how.merged)
        if len(shape) > BROADCAST_DIMENSIONS:
            return f"{len(shape)} dimensions, the kernel has {BROADCAST_DIMENSIONS}"
        axes = merge_axes(shape, self._axes(len(shape)))
        if max(len(axes.kept), len(axes.reduced)) > KERNEL_DIMENSIONS:
            return f"axes alternate more than {KERNEL_DIMENSIONS} times between kept and reduced"
        return "the axes are too long for one invocation's loops" if too_long(_MEAN, axes) else None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) and self._statistics(outputs[0].dims) is not None else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (tensor,), y = inputs, outputs[0].on_device
        assert tensor is not None
        x = ctx.operand(tensor, y.layout)
        how = self._statistics(y.shape)
        if how is not None:
            return normalize_groups(ctx, x, y, how)
        return self._compose(ctx, x, y) if y.span else []

    def _compose(self, ctx: Lowering, x: View, y: View) -> list[Dispatch]:
        axes = self._axes(len(y.shape))
        small = tuple(1 if d in axes else size for d, size in enumerate(y.shape))

        def scratch(shape: tuple[int, ...], name: str) -> View:
            return View(ctx.scratch(prod(shape), name).storage, shape, "float32", "linear")

        mean, centered = scratch(small, "mean"), scratch(y.shape, "centered")
        variance, deviation = scratch(small, "variance"), scratch(small, "deviation")
        divisor = scratch(small, "divisor")
        epsilon = ctx.constant(np.array([EPSILON], np.float32), "epsilon")
        return [
            *lower_reduction(ctx, _MEAN, x, mean, axes),
            *lower_binary(ctx, Binary.SUB, x, mean, centered),
            *lower_reduction(ctx, _MEAN_SQUARE, centered, variance, axes),
            *lower_unary(ctx, variance, deviation, Activation.SQRT),
            *lower_binary(ctx, Binary.ADD, deviation, epsilon, divisor),
            *lower_binary(ctx, Binary.DIV, centered, divisor, y),
        ]


_MEAN = Reduction(Combine.SUM, post=Post.MEAN)
_MEAN_SQUARE = Reduction(Combine.SUM, Pre.SQUARE, Post.MEAN)
