"""Normalisation of rows: LayerNormalization, RMSNormalization, LpNormalization; the kernel
``normalize_rows``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import Dim, row_major, strided_copy
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes, normalise_axis
from vkconv.ops.shared_rows import CHUNK, OWN_ROW, lanes_per_row, share_row, share_strided


class Norm(IntEnum):
    """``NORM_<name>`` of ``shaders/normalize_rows.comp`` (a test compares the two)."""

    MEAN_VARIANCE = 0
    ROOT_MEAN_SQUARE = 1
    L1 = 2
    L2 = 3


@dataclass(frozen=True)
class Rows:
    """Rows along one dimension of a tensor seen as (outer, length, inner)."""

    outer: int
    length: int
    inner: int


def too_long(length: int) -> str | None:
    """Why the kernel can't sum rows of this length, or None: three passes, shared by up to 64
    lanes."""
    return (
        "the rows are too long for one invocation's loops"
        if length * 3 // 64 > MOST_ITERATIONS
        else None
    )


def normalize_rows(
    ctx: Lowering,
    kind: Norm,
    x: View,
    y: View,
    rows: Rows,
    epsilon: float = 0.0,
    scale: View | None = None,
    bias: View | None = None,
) -> list[Dispatch]:
    """Dispatches of y = x with every row normalised, then times ``scale`` plus ``bias``, one
    element per row element."""
    outer, length, inner = rows.outer, rows.length, rows.inner
    if not outer * length * inner:
        return []
    views = [v for v in (x, y, scale, bias) if v is not None]
    row = share_row(ctx.caps, length, views) if inner == 1 else share_strided(ctx.caps, length)
    # rows that are dense or long are shared by the lanes of a workgroup; else each lane has its own
    if length <= CHUNK and (inner > 1 or length < 16):
        row = OWN_ROW
    if inner == 1:
        outer, count, outer_stride, row_stride = 1, outer, 0, length // row.unit
    else:
        count, outer_stride, row_stride = inner, length * inner, 1
    grid = spread(ctx.caps, count, outer, size=1 if row.lanes else None)
    spec = {
        **grid.spec,
        "kind": int(kind),
        "has_scale": int(scale is not None),
        "has_bias": int(bias is not None),
        "kept": row.kept,
    }
    if row.lanes:
        spec["local_size_x"] = row.lanes
    push: dict[str, int | float] = {
        "outer": outer,
        "outer_stride": outer_stride,
        "rows": count,
        "row_stride": row_stride,
        "axis": length // row.unit,
        "step": inner,
        "count": float(length),
        "epsilon": epsilon,
    }
    return [
        ctx.dispatch(
            "normalize_rows",
            {"x": x, "scale": scale, "bias": bias, "y": y},
            push,
            spec,
            grid.count,
            **row.axes,
        )
    ]


class TrailingNormalization(Operator):
    """What LayerNormalization and RMSNormalization share: rows are all dimensions from ``axis``
    on."""

    axis: int
    epsilon: float

    def rows(self, shape: Sequence[int]) -> Rows:
        axis = normalise_axis(self.axis, len(shape))
        return Rows(prod(shape[:axis]), prod(shape[axis:]), 1)

    def check_factor(self, x: Value, factor: Value) -> None:
        if broadcast_shapes(x.dims, factor.dims) != x.dims:
            raise InvalidModelError(
                f"'{factor.name}' of shape {factor.dims} does not broadcast to {x.dims}"
            )

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        assert x is not None
        axis = normalise_axis(self.axis, len(x.dims))
        for factor in inputs[1:]:
            leading = 0 if factor is None else max(len(factor.dims) - len(x.dims) + axis, 0)
            if factor is not None and prod(factor.dims[:leading]) > 1:
                return f"'{factor.name}' differs between rows"
        return too_long(self.rows(x.dims).length)

    def factor(
        self,
        ctx: Lowering,
        tensor: Tensor | None,
        shape: Sequence[int],
        name: str,
        steps: list[Dispatch],
    ) -> View | None:
        """Scale or bias as one element per row element, expanded where it is broadcast."""
        if tensor is None:
            return None
        inner = tuple(shape[normalise_axis(self.axis, len(shape)) :])
        missing = len(inner) - len(tensor.shape)
        own = (1,) * missing + tensor.shape[max(-missing, 0) :]
        source = tensor.array
        if own == inner:
            return ctx.operand(tensor, "linear")
        if source is not None:
            full = source
            return ctx.prepack(
                full,
                f"expanded to {inner}",
                lambda: np.broadcast_to(full.reshape(own), inner).copy(),
            )
        expanded = View(ctx.scratch(prod(inner), name).storage, inner, "float32", "linear")
        dims = [
            Dim(size, 0 if have == 1 else step, target)
            for size, have, step, target in zip(
                inner, own, row_major(own), row_major(inner), strict=True
            )
        ]
        steps += strided_copy(ctx, ctx.operand(tensor, "linear"), expanded, dims)
        return expanded


@operator("LayerNormalization", since=(17,))
class LayerNormalization(TrailingNormalization):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias over the dimensions from ``axis``
    on.

    Further outputs: the mean and 1 / sqrt(variance + epsilon), with those dimensions of size 1.
    """

    result_dtypes: ClassVar[frozenset[str]] = frozenset({"float32"})
    axis: int = -1
    epsilon: float = 1e-5
    stash_type: int = 1

    def infer(self, x: Value, scale: Value, bias: Value | None = None) -> tuple[TensorType, ...]:
        for factor in (scale, bias):
            if factor is not None:
                self.check_factor(x, factor)
        axis = normalise_axis(self.axis, len(x.dims))
        moments = TensorType(
            "float64" if self.stash_type == 11 else "float32",
            x.dims[:axis] + (1,) * (len(x.dims) - axis),
        )
        return x.known_type, moments, moments

    def reference(self, x: Array, scale: Array, bias: Array | None = None) -> tuple[Array, ...]:
        axes = tuple(range(normalise_axis(self.axis, x.ndim), x.ndim))
        wide = x.astype(np.float64)
        mean = wide.mean(axes, keepdims=True)
        centered = wide - mean
        inverse = 1 / np.sqrt((centered * centered).mean(axes, keepdims=True) + self.epsilon)
        y = centered * inverse * scale
        if bias is not None:
            y = y + bias
        stash = np.float64 if self.stash_type == 11 else np.float32
        moments = (mean.astype(stash), inverse.astype(stash))
        return (y.astype(x.dtype), *moments)[: self.output_count]

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, scale, bias = (*inputs, None)[:3]
        assert x is not None
        y = outputs[0].on_device
        rows = self.rows(y.shape)
        source = ctx.operand(x, "linear")
        steps: list[Dispatch] = []
        factor = self.factor(ctx, scale, y.shape, "scale", steps)
        offset = self.factor(ctx, bias, y.shape, "bias", steps)
        steps += normalize_rows(
            ctx, Norm.MEAN_VARIANCE, source, y, rows, self.epsilon, factor, offset
        )
        if len(outputs) > 1 and rows.outer * rows.length:
            steps.append(self._moments(ctx, source, rows, outputs[1:]))
        return steps

    def _moments(self, ctx: Lowering, x: View, rows: Rows, outputs: Sequence[Tensor]) -> Dispatch:
        mean = outputs[0].on_device
        inverse = outputs[1].on_device if len(outputs) > 1 else ctx.scratch(rows.outer, "inverse")
        return ctx.dispatch(
            "row_moments",
            {"x": x, "mean": mean, "inverse": inverse},
            {"rows": rows.outer, "axis": rows.length, "epsilon": self.epsilon},
            {"local_size_x": lanes_per_row(ctx.caps, rows.length)},
            spread(ctx.caps, rows.outer, size=1).count,
        )


@operator("RMSNormalization", since=(23,))
class RMSNormalization(TrailingNormalization):
    """y = x / sqrt(mean of x^2 + epsilon) * scale over the dimensions from ``axis`` on (Zhang &
    Sennrich, 2019)."""

    axis: int = -1
    epsilon: float = 1e-5
    stash_type: int = 1

    def infer(self, x: Value, scale: Value) -> TensorType:
        self.check_factor(x, scale)
        return TensorType(scale.dtype, x.dims)

    def reference(self, x: Array, scale: Array) -> Array:
        axes = tuple(range(normalise_axis(self.axis, x.ndim), x.ndim))
        wide = x.astype(np.float64)
        y = wide / np.sqrt((wide * wide).mean(axes, keepdims=True) + self.epsilon) * scale
        return np.asarray(y).astype(scale.dtype)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, scale = inputs
        assert x is not None
        y = outputs[0].on_device
        steps: list[Dispatch] = []
        factor = self.factor(ctx, scale, y.shape, "scale", steps)
        source = ctx.operand(x, "linear")
        return steps + normalize_rows(
            ctx, Norm.ROOT_MEAN_SQUARE, source, y, self.rows(y.shape), self.epsilon, factor
        )


@operator("LpNormalization", since=(1, 22))
class LpNormalization(Operator):
    """y = x / (sum of |x|^p)^(1/p) along ``axis``, p 1 or 2; 0 where all of x is 0."""

    axis: int = -1
    p: int = 2

    def infer(self, x: Value) -> TensorType:
        if self.p not in (1, 2):
            raise InvalidModelError(f"p is {self.p}; it may be 1 or 2")
        normalise_axis(self.axis, len(x.dims))
        return x.known_type

    def reference(self, x: Array) -> Array:
        wide = x.astype(np.float64)
        size = (np.abs(wide) ** self.p).sum(self.axis, keepdims=True) ** (1 / self.p)
        return np.where(size == 0, 0, wide / np.where(size == 0, 1, size)).astype(x.dtype)

    def rows(self, shape: Sequence[int]) -> Rows:
        axis = normalise_axis(self.axis, len(shape))
        return Rows(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_long(self.rows(outputs[0].dims).length)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), y = inputs, outputs[0].on_device
        assert x is not None
        kind = Norm.L1 if self.p == 1 else Norm.L2
        return normalize_rows(ctx, kind, ctx.operand(x, "linear"), y, self.rows(y.shape))
