"""AveragePool: the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.pool_kernels import AVERAGE, AVERAGE_WITH_PADDING, pool, too_many_taps
from vkconv.ops.pool_window import PoolAttributes, padding, taps
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis

#: taps of a window up to which the kernel visits those in the padding too, where these count
LARGEST_COUNTED = 1 << 16


@operator("AveragePool", since=(1, 7, 10, 11, 19, 22))
class AveragePool(Operator):
    """y[n, c, o] = sum over k of x[n, c, o * stride - pad + k * dilation] / count, with x of shape
    (N, C, *spatial).

    ``count`` is the number of taps inside the input; with ``count_include_pad`` also those in the
    declared padding, but never those that ceil mode adds beyond it (standard, since version 19
    spelled out; earlier versions agree).
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    dilations: tuple[int, ...] | None = None
    auto_pad: str = "NOTSET"
    ceil_mode: int = 0
    count_include_pad: int = 0

    @property
    def window(self) -> PoolAttributes:
        return PoolAttributes(
            self.kernel_shape,
            self.strides,
            self.pads,
            self.dilations,
            self.auto_pad,
            self.ceil_mode,
        )

    def infer(self, x: Value) -> TensorType:
        return TensorType(x.dtype, self.window.output_shape(x))

    def reference(self, x: Array) -> Array:
        axes = self.window.axes(x.shape)
        kind = np.float64 if x.dtype == np.float64 else np.float32
        count = np.ones((), kind)
        for axis in axes:
            count = np.multiply.outer(count, self._taps_counted(axis).astype(kind))
        trimmed = tuple(a.trimmed for a in axes)
        padded = np.pad(x.astype(kind), padding(trimmed))
        total = np.zeros((*x.shape[:2], *(a.out for a in axes)), kind)
        for window in taps(trimmed):
            total += padded[window]
        return np.asarray((total / np.maximum(count, 1)).astype(x.dtype))

    def _taps_counted(self, axis: Axis) -> Array:
        """How many taps of each window along an axis lie inside the input, or inside the input and
        its declared padding."""
        low, high = 0, axis.size
        if self.count_include_pad:
            low, high = -axis.begin, axis.size + axis.end
        starts = [o * axis.stride - axis.begin for o in range(axis.out)]
        first = [max(0, ceil_div(low - s, axis.dilation)) for s in starts]
        end = [min(axis.kernel, ceil_div(high - s, axis.dilation)) for s in starts]
        return np.array([max(0, e - f) for f, e in zip(first, end, strict=True)], np.float64)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if not 3 <= len(outputs[0].dims) <= 5:
            return f"no kernel for {len(outputs[0].dims) - 2} spatial dimensions"
        x = inputs[0]
        if x is not None and (reason := too_many_taps(self._axes(x.dims))) is not None:
            return reason
        counted = prod(self.kernel_shape)
        if x is not None and self._counts_padding(x.dims) and counted > LARGEST_COUNTED:
            axes = self.window.axes(x.dims)
            if any(a.trimmed.kernel < a.kernel for a in axes):
                return f"no kernel counts windows of {counted} taps that lie beyond the input"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        if x is None:
            raise InvalidModelError("the input is missing")
        kind = AVERAGE_WITH_PADDING if self._counts_padding(x.shape) else AVERAGE
        return pool(ctx, ctx.operand(x, "c4"), y.on_device, self._axes(x.shape), kind)

    def _axes(self, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        """The axes as the kernel takes them."""
        axes = self.window.axes(shape)
        return axes if self._counts_padding(shape) else tuple(a.trimmed for a in axes)

    def _counts_padding(self, shape: tuple[int, ...]) -> bool:
        """Whether there is padding that counts; what ceil mode adds never does."""
        return bool(self.count_include_pad) and any(
            a.begin > 0 or a.end > 0 for a in self.window.axes(shape)
        )
