"""Concat: without copies where the parts' producers can write straight into the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.copying import Dim, c4_strides, channel_copy, row_major, strided_copy
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import normalise_axis


@operator("Concat", since=(1, 4, 11, 13))
class Concat(Operator):
    """y = the inputs one after the other along ``axis``; their other dimensions agree."""

    axis: int | None = None
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, *inputs: Value) -> TensorType:
        if not inputs:
            raise InvalidModelError("Concat needs at least one input")
        first = inputs[0].dims
        axis = self._axis(len(first))
        for value in inputs[1:]:
            dims = value.dims
            same = len(dims) == len(first) and all(
                i == axis or a == b for i, (a, b) in enumerate(zip(dims, first, strict=True))
            )
            if not same or value.dtype != inputs[0].dtype:
                raise InvalidModelError(
                    f"{value.known_type} does not join {inputs[0].known_type} along axis {axis}"
                )
        total = sum(v.dims[axis] for v in inputs)
        return TensorType(inputs[0].dtype, (*first[:axis], total, *first[axis + 1 :]))

    def reference(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=self._axis(inputs[0].ndim))

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        y = outputs[0]
        fits = 3 <= len(y.dims) <= 5 and y.dtype in FLOATS
        any_c4 = any(v is not None and v.layout == "c4" for v in inputs)
        return "c4" if fits and any_c4 else "linear"

    def place(self, y: View, inputs: Sequence[Value | None]) -> tuple[View | None, ...] | None:
        values = [v for v in inputs if v is not None]
        axis = self._axis(len(y.shape))
        if y.layout == "c4":
            return tuple(self._c4_place(y, v, axis, at) for v, at in self._parts(values, axis))
        if any(d != 1 for d in y.shape[:axis]):
            return None
        step = row_major(y.shape)[axis]
        return tuple(
            None
            if v.is_constant
            else View(y.storage, v.dims, v.dtype, "linear", y.offset + at * step)
            for v, at in self._parts(values, axis)
        )

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        tensors = [t for t in inputs if t is not None]
        values = [t.value for t in tensors]
        places = self.place(y, values) or (None,) * len(tensors)
        axis = self._axis(len(y.shape))
        steps: list[Dispatch] = []
        for tensor, place, (_, at) in zip(tensors, places, self._parts(values, axis), strict=True):
            if tensor.view is not None and tensor.view == place:
                continue
            x = ctx.operand(tensor, y.layout)
            steps += (
                self._copy_c4(ctx, x, y, axis, at)
                if y.layout == "c4"
                else _copy(ctx, x, y, axis, at)
            )
        return steps

    def _axis(self, rank: int) -> int:
        if self.axis is None:
            if self.version >= 4:
                raise InvalidModelError("attribute 'axis' is missing")
            return normalise_axis(1, rank)
        return normalise_axis(self.axis, rank)

    @staticmethod
    def _parts(values: Sequence[Value], axis: int) -> Iterator[tuple[Value, int]]:
        at = 0
        for value in values:
            yield value, at
            at += value.dims[axis]

    @staticmethod
    def _c4_place(y: View, value: Value, axis: int, at: int) -> View | None:
        """Where a part lies in y: whole batches, or channels that start and end between vec4s.

        The last part may end anywhere: what pads it, pads y.
        """
        if value.is_constant or axis > 1:
            return None
        if axis == 0:
            offset = at * y.batch_stride
        else:
            end = at + value.dims[1]
            if at % 4 or (end % 4 and end != y.shape[1]):
                return None
            _, _, h, w = c4_dims(y.shape)
            offset = at * h * w
        return View(y.storage, value.dims, value.dtype, "c4", y.offset + offset, y.batch_stride)

    @staticmethod
    def _copy_c4(ctx: Lowering, x: View, y: View, axis: int, at: int) -> list[Dispatch]:
        if axis == 1 and (at % 4 or x.shape[1] % 4):
            return channel_copy(ctx, x, y, 0, at, x.shape[1], merge=at % 4 != 0)
        n, blocks, _, _ = c4_dims(x.shape)
        sizes = (n, blocks, *x.shape[2:])
        strides = c4_strides(y)
        dims = [Dim(*d) for d in zip(sizes, c4_strides(x), strides, strict=True)]
        start = (at // 4 if axis == 1 else at) * strides[axis]
        return strided_copy(ctx, x, y, dims, 0, start, vec4=True)


def _copy(ctx: Lowering, x: View, y: View, axis: int, at: int) -> list[Dispatch]:
    strides = row_major(y.shape)
    dims = [Dim(*d) for d in zip(x.shape, row_major(x.shape), strides, strict=True)]
    return strided_copy(ctx, x, y, dims, 0, at * strides[axis])
