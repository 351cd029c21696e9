"""QuantizeLinear and DequantizeLinear: per tensor, per axis, or in blocks along an axis.

Never wrong by one: quotients are rounded correctly, and to float16 where the division is one of
float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import DTYPES, Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div, normalise_axis

#: types that this package quantises to; those of four bits, and floats of eight, are beyond it
QUANTIZED = ("int8", "uint8", "int16", "uint16")


@dataclass(frozen=True)
class Granularity:
    """x as (outer, axis, inner), and where the scale of an element lies: steps of o, a / block and
    i."""

    outer: int
    axis: int
    inner: int
    block: int
    steps: tuple[int, int, int]

    def expand(self, scale: Array, shape: Sequence[int]) -> Array:
        """Scales or zero points broadcastable to ``shape``."""
        if self.steps == (0, 0, 0):
            return scale.reshape(())
        if self.steps[0] == self.steps[2] == 0:
            return np.broadcast_to(
                scale.reshape(1, -1, 1), (self.outer, self.axis, self.inner)
            ).reshape(shape)
        blocks = scale.reshape(self.outer, -1, self.inner)
        return np.repeat(blocks, self.block, 1)[:, : self.axis].reshape(shape)

    @property
    def push(self) -> dict[str, int | tuple[int, ...]]:
        return {
            "outer": self.outer,
            "axis": self.axis,
            "inner": self.inner,
            "block": self.block,
            "scale_step": self.steps,
        }


def granularity(
    shape: Sequence[int], scale: Sequence[int], axis: int, block_size: int
) -> Granularity:
    """What the scale's shape means for a tensor of ``shape``. Raises InvalidModelError."""
    if prod(scale) == 1 and len(scale) <= 1:
        return Granularity(1, 1, prod(shape), 1, (0, 0, 0))
    axis = normalise_axis(axis, len(shape))
    outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
    if block_size:
        wanted = (*shape[:axis], ceil_div(shape[axis], max(block_size, 1)), *shape[axis + 1 :])
        if block_size < 0 or tuple(scale) != wanted:
            raise InvalidModelError(
                f"scale of shape {tuple(scale)}, expected {wanted} for blocks of {block_size}"
            )
        return Granularity(outer, shape[axis], inner, block_size, (scale[axis] * inner, inner, 1))
    if tuple(scale) != (shape[axis],):
        raise InvalidModelError(f"scale of shape {tuple(scale)}, expected ({shape[axis]},)")
    return Granularity(outer, shape[axis], inner, 1, (0, 1, 0))


class Linear(Operator):
    """What the two share."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    axis: int
    block_size: int

    def granularity(self, shape: Sequence[int], scale: Sequence[int]) -> Granularity:
        return granularity(shape, scale, self.axis, self.block_size)

    def check(self, x: Value, scale: Value, zero_point: Value | None) -> None:
        self.granularity(x.dims, scale.dims)
        if zero_point is not None and zero_point.known_type.size != scale.known_type.size:
            raise InvalidModelError(
                f"zero point of shape {zero_point.dims} for a scale of shape {scale.dims}"
            )


def dtype_name(number: int) -> str:
    """The name of a TensorProto.DataType that this package has."""
    name = DTYPES[number - 1] if 1 <= number <= len(DTYPES) else ""
    if not name:
        raise UnsupportedModelError(f"element type {number} is not supported")
    return name


@operator("QuantizeLinear", since=(10, 13, 19, 21, 23, 24, 25, 28))
class QuantizeLinear(Linear):
    """y = saturate(round(x / scale) + zero_point), halves to even; NaN becomes the lowest number.

    The division is one of the type ``precision``, else of the wider of x and scale.
    """

    axis: int = 1
    block_size: int = 0
    output_dtype: int = 0
    precision: int = 0
    saturate: int = 1

    def infer(self, x: Value, scale: Value, zero_point: Value | None = None) -> TensorType:
        self.check(x, scale, zero_point)
        dtype = dtype_name(self.output_dtype) if self.output_dtype else "uint8"
        if zero_point is not None:
            if self.output_dtype and zero_point.dtype != dtype:
                raise InvalidModelError(
                    f"output_dtype is {dtype}, the zero point {zero_point.dtype}"
                )
            dtype = zero_point.dtype
        if dtype not in QUANTIZED:
            raise UnsupportedModelError(f"quantisation to {dtype} is not supported")
        return TensorType(dtype, x.dims)

    def division(self, x: str, scale: str) -> str:
        return dtype_name(self.precision) if self.precision else np.result_type(x, scale).name

    def reference(self, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
        how = self.granularity(x.shape, scale.shape)
        dtype = dtype_name(self.output_dtype) if self.output_dtype else "uint8"
        dtype = dtype if zero_point is None else zero_point.dtype.name
        division = self.division(x.dtype.name, scale.dtype.name)
        with np.errstate(all="ignore"):
            divisor = how.expand(scale, x.shape).astype(division)
            q = np.asarray(x.astype(division) / divisor).astype(np.float64)
        q = np.rint(np.clip(np.where(np.isnan(q), -1e9, q), -1e9, 1e9)).astype(np.int64)
        if zero_point is not None:
            q = q + how.expand(zero_point, x.shape)
        limits = np.iinfo(dtype)
        return np.asarray(np.clip(q, limits.min, limits.max)).astype(dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x, scale = inputs[:2]
        assert x is not None and scale is not None
        division = self.division(x.dtype, scale.dtype)
        if x.dtype not in FLOATS or scale.dtype not in FLOATS or division not in FLOATS:
            return f"no kernel divides {x.dtype} by {scale.dtype} as {division}"
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, scale, zero_point = (*inputs, None)[:3]
        assert x is not None and scale is not None
        how = self.granularity(x.shape, scale.shape)
        zero = None if zero_point is None else ctx.operand(zero_point, "linear")
        in_half = self.division(x.dtype, scale.dtype) == "float16"
        source, divisor = ctx.operand(x, "linear"), ctx.operand(scale, "linear")
        return lower_quantize(
            ctx, source, divisor, zero, outputs[0].on_device, how, in_half=in_half
        )


def lower_quantize(
    ctx: Lowering,
    x: View,
    scale: View,
    zero_point: View | None,
    y: View,
    how: Granularity,
    *,
    in_half: bool = False,
) -> list[Dispatch]:
    """Dispatches of y = saturate(round(x / scale) + zero_point) for linear views."""
    if not y.span:
        return []
    grid = spread(ctx.caps, how.axis * how.inner, how.outer)
    limits = np.iinfo(y.dtype)
    return [
        ctx.dispatch(
            "quantize_linear",
            {"x": x, "scale": scale, "zero_point": zero_point, "y": y},
            {**how.push, "low": int(limits.min), "high": int(limits.max)},
            {
                **grid.spec,
                "has_zero_point": int(zero_point is not None),
                "in_half": int(in_half),
            },
            grid.count,
        )
    ]


@operator("DequantizeLinear", since=(10, 13, 19, 21, 23, 24, 25, 28))
class DequantizeLinear(Linear):
    """y = (x - zero_point) * scale, in float32, in the type of the scale or ``output_dtype``."""

    axis: int = 1
    block_size: int = 0
    output_dtype: int = 0

    def infer(self, x: Value, scale: Value, zero_point: Value | None = None) -> TensorType:
        self.check(x, scale, zero_point)
        if zero_point is not None and zero_point.dtype != x.dtype:
            raise InvalidModelError(f"input of {x.dtype} with a zero point of {zero_point.dtype}")
        return TensorType(
            dtype_name(self.output_dtype) if self.output_dtype else scale.dtype, x.dims
        )

    def reference(self, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
        how = self.granularity(x.shape, scale.shape)
        y = x.astype(np.float32)
        if zero_point is not None:
            y = y - how.expand(zero_point, x.shape).astype(np.float32)
        dtype = dtype_name(self.output_dtype) if self.output_dtype else scale.dtype.name
        return np.asarray(y * how.expand(scale, x.shape)).astype(dtype)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, scale, zero_point = (*inputs, None)[:3]
        y = outputs[0].on_device
        assert x is not None and scale is not None
        if not y.span:
            return []
        how = self.granularity(x.shape, scale.shape)
        grid = spread(ctx.caps, how.axis * how.inner, how.outer)
        return [
            ctx.dispatch(
                "dequantize_linear",
                {
                    "x": ctx.operand(x, "linear"),
                    "scale": ctx.operand(scale, "linear"),
                    "zero_point": None if zero_point is None else ctx.operand(zero_point, "linear"),
                    "y": y,
                },
                how.push,
                {**grid.spec, "has_zero_point": int(zero_point is not None)},
                grid.count,
            )
        ]
