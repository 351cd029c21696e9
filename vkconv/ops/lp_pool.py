"""LpPool and GlobalLpPool: the p-norm of each window, or of each map."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from vkconv.dispatch import Dispatch, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.pool_kernels import global_pool, too_many_taps, whole_map
from vkconv.ops.pool_window import PoolAttributes, padding, taps
from vkconv.ops.reduction_kernels import MOST_ITERATIONS, Combine, Post, Pre, Reduction
from vkconv.ops.registry import operator
from vkconv.ops.window import Axis

#: the norms of whole maps that are plain reductions, by p
NORMS = {1.0: Reduction(Combine.SUM, Pre.ABS), 2.0: Reduction(Combine.SUM, Pre.SQUARE, Post.SQRT)}


class _LpPooling(Operator):
    """What the two have in common: y = (sum of |x|^p over a window)^(1/p)."""

    p: float

    def axes(self, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        """The spatial axes of an input of that shape."""
        raise NotImplementedError

    def _trimmed(self, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        return tuple(a.trimmed for a in self.axes(shape))

    def infer(self, x: Value) -> TensorType:
        if self.p <= 0:
            raise InvalidModelError(f"p is {self.p}")
        return TensorType(x.dtype, (*x.dims[:2], *(a.out for a in self.axes(x.dims))))

    def reference(self, x: Array) -> Array:
        axes = self._trimmed(x.shape)
        work = np.float64 if x.dtype == np.float64 else np.float32
        powers = np.abs(np.pad(x.astype(work), padding(axes))) ** work(self.p)
        total = np.zeros((*x.shape[:2], *(a.out for a in axes)), work)
        for window in taps(axes):
            total += powers[window]
        return np.asarray((total ** work(1 / self.p)).astype(x.dtype))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if not 3 <= len(outputs[0].dims) <= 5:
            return f"no kernel for {len(outputs[0].dims) - 2} spatial dimensions"
        x = inputs[0]
        return None if x is None else too_many_taps(self._trimmed(x.dims), c4=self.p in NORMS)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        n, blocks, h, w = c4_dims(y.shape)
        if n * blocks * h * w == 0:
            return []
        axes = self._trimmed(x.shape)
        if self.p in NORMS and whole_map(axes):
            return global_pool(ctx, ctx.operand(x, "c4"), y, NORMS[self.p])
        axes = (Axis(1, 1, 1, 1, 1, 0, 0),) * (3 - len(axes)) + axes
        most_turns = MOST_ITERATIONS // max(prod(a.kernel for a in axes), 1)
        where = spread(ctx.caps, h * w, blocks, n, most_turns=most_turns)
        return [
            ctx.dispatch(
                "lp_pool",
                {"x": ctx.operand(x, "c4"), "y": y},
                {
                    "batches": n,
                    "channels": y.shape[1],
                    "in_size": [a.size for a in axes],
                    "out_size": [a.out for a in axes],
                    "kernel": [a.kernel for a in axes],
                    "stride": [a.stride for a in axes],
                    "dilation": [a.dilation for a in axes],
                    "pad": [a.begin for a in axes],
                },
                {**where.spec, "p": float(self.p)},
                where.count,
            )
        ]


@operator("LpPool", since=(1, 2, 11, 18, 22))
class LpPool(_LpPooling):
    """y[n, c, o] = (sum over k of |x[n, c, o * stride - pad + k * dilation]|^p)^(1/p), for x (N, C,
    *spatial); padding adds nothing."""

    kernel_shape: tuple[int, ...]
    p: float = 2.0
    strides: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    dilations: tuple[int, ...] | None = None
    auto_pad: str = "NOTSET"
    ceil_mode: int = 0

    def axes(self, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        return PoolAttributes(
            self.kernel_shape,
            self.strides,
            self.pads,
            self.dilations,
            self.auto_pad,
            self.ceil_mode,
        ).axes(shape)


@operator("GlobalLpPool", since=(1, 2, 22))
class GlobalLpPool(_LpPooling):
    """y[n, c] = (sum of |x[n, c]|^p over all spatial positions)^(1/p)."""

    p: float = 2.0

    def axes(self, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        if len(shape) < 3 or 0 in shape[2:]:
            raise InvalidModelError(f"input of shape {shape} has no pixels to pool")
        return tuple(Axis(size, 1, size, 1, 1, 0, 0) for size in shape[2:])
