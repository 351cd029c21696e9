"""Softmax and LogSoftmax: a distribution along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.shapes import normalise_axis
from vkconv.ops.shared_rows import CHUNK, OWN_ROW, share_row, share_strided


@dataclass(eq=False)
class AlongAxis(Operator):
    """What the two have in common.

    From version 13 on they work along ``axis``; before, along all axes from ``axis`` (default 1)
    on, flattened.
    """

    axis: int | None = None
    logarithmic: ClassVar[bool]

    def infer(self, x: Value) -> TensorType:
        self.split(x.dims)
        return x.known_type

    def split(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """(outer, axis, inner): the tensor seen with the distribution in the middle."""
        if self.version >= 13:
            axis = normalise_axis(-1 if self.axis is None else self.axis, max(len(shape), 1))
            return prod(shape[:axis]), prod(shape[axis : axis + 1]), prod(shape[axis + 1 :])
        axis = 1 if self.axis is None else self.axis
        # the flattening may be at the rank itself: everything is outer
        axis = axis if axis == len(shape) else normalise_axis(axis, len(shape))
        return prod(shape[:axis]), prod(shape[axis:]), 1

    def reference(self, x: Array) -> Array:
        wide = x.reshape(self.split(x.shape)).astype(np.float64)
        if not x.size:
            return x.copy()
        shifted = wide - wide.max(1, keepdims=True)
        total = np.exp(shifted).sum(1, keepdims=True)
        y = np.asarray(shifted - np.log(total) if self.logarithmic else np.exp(shifted) / total)
        return y.reshape(x.shape).astype(x.dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        # three passes, shared by up to 64 lanes
        if self.split(outputs[0].dims)[1] * 3 // 64 > MOST_ITERATIONS:
            return "the axis is too long for one invocation's loops"
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        outer, axis, inner = self.split(y.shape)
        if outer * axis * inner == 0:
            return []
        view = ctx.operand(x, "linear")
        # Rows that are long, or dense and not very short, are shared by the lanes of a workgroup.
        # Else each lane has a row of its own; so on CPU drivers that have to meet at barriers, when
        # rows are many enough to keep all threads busy
        row = share_row(ctx.caps, axis, (view, y)) if inner == 1 else share_strided(ctx.caps, axis)
        plenty = row.meets and ctx.caps.kind == "cpu" and outer >= 128
        least = 64 if row.meets else 16
        if axis <= CHUNK and (inner > 1 or axis < least or plenty):
            row = OWN_ROW
        units = axis // row.unit
        if inner == 1:
            outer, rows, outer_stride, row_stride = 1, outer, 0, units
        else:
            rows, outer_stride, row_stride = inner, axis * inner, 1
        grid = spread(ctx.caps, rows, outer, size=1 if row.lanes else None)
        spec = {**grid.spec, "logarithmic": int(self.logarithmic), "kept": row.kept}
        if row.lanes:
            spec["local_size_x"] = row.lanes
        return [
            ctx.dispatch(
                "softmax",
                {"x": view, "y": y},
                {
                    "outer": outer,
                    "outer_stride": outer_stride,
                    "rows": rows,
                    "row_stride": row_stride,
                    "axis": units,
                    "step": inner,
                },
                spec,
                grid.count,
                **row.axes,
            )
        ]


@operator("Softmax", since=(1, 11, 13))
class Softmax(AlongAxis):
    """y = exp(x) / sum(exp(x)) along the axis."""

    logarithmic: ClassVar[bool] = False


@operator("LogSoftmax", since=(1, 11, 13))
class LogSoftmax(AlongAxis):
    """y = log(exp(x) / sum(exp(x))) along the axis."""

    logarithmic: ClassVar[bool] = True
