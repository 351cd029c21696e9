"""MaxPool: the largest value of each window (and, as second output, where it was)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator, Types
from vkconv.ops.pool_kernels import (
    MAXIMUM,
    pool,
    pool_with_indices,
    select_sliding,
    sliding_maximum,
    sliding_maximum2d,
    too_many_taps,
)
from vkconv.ops.pool_window import PoolAttributes, padding, taps
from vkconv.ops.registry import operator


@operator("MaxPool", since=(1, 8, 10, 11, 12, 22))
class MaxPool(Operator):
    """y[n, c, o] = max over k of x[n, c, o * stride - pad + k * dilation], for x (N, C, *spatial).

    Padding never wins. Indices (int64) count elements of the whole of x, row-major; with
    ``storage_order`` 1 the spatial axes count column-major.
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    dilations: tuple[int, ...] | None = None
    auto_pad: str = "NOTSET"
    ceil_mode: int = 0
    storage_order: int = 0
    device_dtypes: ClassVar[frozenset[str]] = FLOATS | {"int8", "uint8"}
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"int64"})

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

    def infer(self, x: Value) -> Types:
        shape = self.window.output_shape(x)
        y = TensorType(x.dtype, shape)
        return (y, TensorType("int64", shape)) if self.output_count > 1 else y

    def reference(self, x: Array) -> Array | tuple[Array, Array]:
        axes = tuple(a.trimmed for a in self.window.axes(x.shape))
        low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        padded = np.pad(x, padding(axes), constant_values=low)
        shape = (*x.shape[:2], *(a.out for a in axes))
        y = np.full(shape, low, x.dtype)
        if self.output_count == 1:
            for window in taps(axes):
                np.maximum(y, padded[window], out=y)
            return y
        places = np.pad(self._positions(x.shape), padding(axes), constant_values=-1)
        indices = np.full(shape, -1, np.int64)
        for window in taps(axes):
            value, place = padded[window], places[window]
            better = (place >= 0) & ((value > y) | (indices < 0))
            y, indices = np.where(better, value, y), np.where(better, place, indices)
        return y, np.maximum(indices, 0)

    def _positions(self, shape: tuple[int, ...]) -> Array:
        """The index that ``Indices`` gives each element of x."""
        count = int(np.prod(shape[2:]))
        plane: Array = np.arange(count, dtype=np.int64)
        if self.storage_order:
            plane = plane.reshape(shape[:1:-1]).transpose()
        start = np.arange(shape[0] * shape[1], dtype=np.int64) * count
        return np.add.outer(start, plane.reshape(shape[2:])).reshape(shape)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if not 3 <= len(outputs[0].dims) <= 5:
            return f"no kernel for {len(outputs[0].dims) - 2} spatial dimensions"
        x = inputs[0]
        if x is None:
            return None
        axes = tuple(a.trimmed for a in self.window.axes(x.dims))
        return too_many_taps(axes, c4=self.layout(inputs, outputs) == "c4")

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        x = inputs[0]
        plain = len(outputs) == 1 and x is not None and x.dtype in FLOATS
        return "c4" if plain else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), y = inputs, outputs[0]
        if x is None:
            raise InvalidModelError("the input is missing")
        axes = tuple(a.trimmed for a in self.window.axes(x.shape))
        if y.on_device.layout == "linear":
            indices = outputs[1].on_device if len(outputs) > 1 else None
            source = ctx.operand(x, "linear")
            return pool_with_indices(
                ctx, source, y.on_device, indices, axes, column_major=bool(self.storage_order)
            )
        source, target = ctx.operand(x, "c4"), y.on_device
        rows = select_sliding(ctx.caps, target.shape, axes)
        if rows is not None:
            both = (source, target, axes)
            return sliding_maximum2d(ctx, *both, rows) if rows else sliding_maximum(ctx, *both)
        return pool(ctx, source, target, axes, MAXIMUM)
