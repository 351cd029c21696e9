"""AveragePool: the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.base import Lowering, Operator, Tensor, operator
from vkconv.ops.pool_kernels import AVERAGE, AVERAGE_WITH_PADDING, pool
from vkconv.ops.pool_window import PoolAttributes, padding, taps


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
        widths = padding(axes)
        padded = np.pad(x.astype(kind), widths)
        counted = np.ones((1, 1, *x.shape[2:]), kind)
        if self.count_include_pad:
            declared = [(0, 0), (0, 0), *((a.begin, a.end) for a in axes)]
            counted = np.pad(counted, declared, constant_values=1)
            widths = [(0, w[1] - d[1]) for w, d in zip(widths, declared, strict=True)]
        counted = np.pad(counted, widths)
        total = np.zeros((*x.shape[:2], *(a.out for a in axes)), kind)
        count = np.zeros((1, 1, *total.shape[2:]), kind)
        for window in taps(axes):
            total += padded[window]
            count += counted[window]
        return np.asarray((total / np.maximum(count, 1)).astype(x.dtype))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if not 3 <= len(outputs[0].dims) <= 5:
            return f"no kernel for {len(outputs[0].dims) - 2} spatial dimensions"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        if x is None:
            raise InvalidModelError("the input is missing")
        kind = AVERAGE_WITH_PADDING if self.count_include_pad else AVERAGE
        axes = self.window.axes(x.shape)
        return pool(ctx, ctx.operand(x, "c4"), y.on_device, axes, kind)
