"""LpPool and GlobalLpPool: the p-norm of each window. Rare in detectors: computed on the host."""

from __future__ import annotations

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.base import Operator, operator
from vkconv.ops.pool_window import PoolAttributes, padding, taps


@operator("LpPool", since=(1, 2, 11, 18, 22))
class LpPool(Operator):
    """y[n, c, o] = (sum over k of |x[n, c, o * stride - pad + k * dilation]|^p)^(1/p)."""

    kernel_shape: tuple[int, ...]
    p: int = 2
    strides: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    dilations: tuple[int, ...] | None = None
    auto_pad: str = "NOTSET"
    ceil_mode: int = 0

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
        powers = np.pad(np.abs(x.astype(np.float64)) ** self.p, padding(axes))
        total = np.zeros((*x.shape[:2], *(a.out for a in axes)))
        for window in taps(axes):
            total += powers[window]
        return np.asarray((total ** (1 / self.p)).astype(x.dtype))


@operator("GlobalLpPool", since=(1, 2, 22))
class GlobalLpPool(Operator):
    """y[n, c] = (sum over all pixels of |x[n, c]|^p)^(1/p)."""

    p: int = 2

    def infer(self, x: Value) -> TensorType:
        if len(x.dims) < 3:
            raise InvalidModelError(f"input of shape {x.dims} has no pixels to pool")
        return TensorType(x.dtype, (*x.dims[:2], *(1 for _ in x.dims[2:])))

    def reference(self, x: Array) -> Array:
        powers = np.abs(x.astype(np.float64)) ** self.p
        total = powers.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return np.asarray((total ** (1 / self.p)).astype(x.dtype))
