"""What the integer products share: zero points subtracted, and sums brought to the scale of the
output."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Value
from vkconv.ops.binary import lower_binary
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import linear_walk
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.shapes import broadcast_shapes


def centered(
    ctx: Lowering,
    x: Tensor,
    zero_point: Tensor | None,
    shape: Sequence[int],
    steps: list[Dispatch],
) -> View:
    """View of x - zero_point as int32; ``shape`` is what the zero point broadcasts as."""
    zeros = None if zero_point is None else zero_point.array
    if zero_point is None or (zeros is not None and not zeros.any()):
        return ctx.operand(x, "linear")
    source = x.array
    if source is not None and zeros is not None:
        own, offset = source, zeros.reshape(shape)
        return ctx.prepack(
            (own, zeros), "centered", lambda: own.astype(np.int32) - offset.astype(np.int32)
        )
    size = prod(x.shape)
    y = View(ctx.scratch(size, "centered").storage, x.shape, "int32", "linear")
    zero = ctx.operand(zero_point, "linear")
    zero = View(zero.storage, tuple(shape), zero.dtype, "linear", zero.offset)
    own_view = ctx.operand(x, "linear")
    steps += lower_binary(ctx, Binary.SUB, own_view, zero, y)
    return y


def require_quantized(*values: Value) -> None:
    """Raises InvalidModelError where a quantized tensor, or a zero point, is no integer."""
    for value in values:
        if not value.dtype.startswith(("int", "uint")):
            raise InvalidModelError(f"'{value.name}' is {value.dtype}, expected int8 or uint8")


def factor_array(a: Array, b: Array, c: Array) -> Array:
    """Factor a b / c in the scales' own type, as the runtime that ONNX models are judged by
    computes it."""
    return np.asarray(a * b / c.reshape(()))


def requantized(sums: Array, factor: Array, zero_point: Array) -> Array:
    """saturate(round(sums * factor) + zero_point) in the zero point's type, the product in
    float32."""
    limits = np.iinfo(zero_point.dtype)
    scaled = sums.astype(np.float32) * factor.astype(np.float32)
    rounded = np.rint(np.clip(scaled, -1e9, 1e9)).astype(np.int64) + int(zero_point.reshape(()))
    return np.clip(rounded, limits.min, limits.max).astype(zero_point.dtype)


def lower_requantize(
    ctx: Lowering,
    sums: View,
    scales: tuple[Tensor, Tensor, Tensor],
    shapes: tuple[Sequence[int], Sequence[int]],
    zero_point: Tensor,
    y: View,
) -> list[Dispatch]:
    """Dispatches of y = saturate(round(sums * a b / c) + zero_point) for scales a, b (of
    ``shapes``, which broadcast) and c."""
    if not y.span:
        return []
    steps: list[Dispatch] = []
    factor = _factor(ctx, scales, shapes, steps)
    walk = linear_walk(y.shape, [factor.shape]).padded()
    grid = spread(ctx.caps, y.span)
    limits = np.iinfo(y.dtype)
    steps.append(
        ctx.dispatch(
            "requantize",
            {"x": sums, "factor": factor, "zero_point": ctx.operand(zero_point, "linear"), "y": y},
            {
                "count": y.span,
                "size": walk.size,
                "factor_stride": walk.strides[0],
                "low": int(limits.min),
                "high": int(limits.max),
            },
            grid.spec,
            grid.count,
        )
    )
    return steps


def _factor(
    ctx: Lowering,
    scales: tuple[Tensor, Tensor, Tensor],
    shapes: tuple[Sequence[int], Sequence[int]],
    steps: list[Dispatch],
) -> View:
    shape = broadcast_shapes(*shapes)
    arrays = tuple(t.array for t in scales if t.array is not None)
    if len(arrays) == 3:
        a, b, c = arrays
        return ctx.prepack(
            arrays,
            f"requantization factor {shape}",
            lambda: np.broadcast_to(
                factor_array(a.reshape(shapes[0]), b.reshape(shapes[1]), c), shape
            ).copy(),
        )
    y = View(ctx.scratch(prod(shape), "factor").storage, shape, "float32", "linear")
    walk = linear_walk(shape, shapes).padded()
    grid = spread(ctx.caps, y.span)
    steps.append(
        ctx.dispatch(
            "requantization_factor",
            {
                **{n: ctx.operand(t, "linear") for n, t in zip("abc", scales, strict=True)},
                "factor": y,
            },
            {
                "count": y.span,
                "size": walk.size,
                "a_stride": walk.strides[0],
                "b_stride": walk.strides[1],
            },
            {**grid.spec, "in_half": int(all(t.dtype == "float16" for t in scales))},
            grid.count,
        )
    )
    return y
