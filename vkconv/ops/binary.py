"""Functions of two elements with broadcasting: what they share, and how they become dispatches.

Two forms of one kernel. ``vec4``: C4 tensors, and linear ones whose innermost dimension is whole
vec4s or constant. ``scalar``: anything linear. Which dimensions are looped over is decided in
``broadcasting.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import (
    KERNEL_DIMENSIONS,
    c4_walk,
    in_vec4s,
    linear_walk,
    walk_grid,
)
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import ARITHMETIC, Operator
from vkconv.ops.packing import pack_c4
from vkconv.ops.shapes import broadcast_shapes, elementwise_layout


class BinaryOperator(Operator):
    """y = f(a, b), a and b broadcast against each other; both of one dtype."""

    device_dtypes: ClassVar[frozenset[str]] = ARITHMETIC
    overwrites: ClassVar[frozenset[int]] = frozenset({0, 1})
    function: ClassVar[Binary]
    # passes.align_operands acts on the last two
    former_attributes: ClassVar[Mapping[str, int]] = {
        "consumed_inputs": 6,
        "broadcast": 7,
        "axis": 7,
    }

    def infer(self, a: Value, b: Value) -> TensorType:
        require_same_dtype(a, b)
        return TensorType(a.dtype, broadcast_shapes(a.dims, b.dims))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_many_dimensions(inputs, outputs)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return broadcast_layout(inputs, outputs[0])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        a, b = (broadcast_operand(ctx, x, y) for x in inputs if x is not None)
        return lower_binary(ctx, self.function, a, b, y)


def require_same_dtype(*values: Value) -> None:
    for value in values[1:]:
        if value.dtype != values[0].dtype:
            raise InvalidModelError(
                f"inputs of type {values[0].dtype} and {value.dtype}; both must be of one type"
            )


def in_float32(x: Array) -> Array:
    """float16 widened, for references that round once at the end; other dtypes as they are."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def too_many_dimensions(inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
    walk = linear_walk(outputs[0].dims, [v.dims for v in inputs if v is not None])
    if len(walk.size) > KERNEL_DIMENSIONS:
        return f"it broadcasts in {len(walk.size)} dimensions, the kernel in {KERNEL_DIMENSIONS}"
    return None


def broadcast_layout(inputs: Sequence[Value | None], output: Value) -> Layout:
    """C4 where ``elementwise_layout`` has it and every computed operand has the output's rank."""
    computed = [v for v in inputs if v is not None and not v.is_constant]
    if any(len(v.dims) != len(output.dims) for v in computed):
        return "linear"
    return elementwise_layout(inputs, output)


def broadcast_operand(ctx: Lowering, x: Tensor, y: View) -> View:
    """The view of an operand of ``y``; constants in y's layout and rank, float where y or the
    kernel is."""
    array = x.array
    if array is None:
        return ctx.operand(x, y.layout)
    if y.layout == "linear":
        return ctx.operand(x, "linear")
    rank = len(y.shape)
    shape = (1,) * (rank - array.ndim) + array.shape
    packed = ctx.prepack(array, f"c4 of rank {rank}", lambda: pack_c4(array.reshape(shape)))
    stride = packed.span // shape[0]
    return View(packed.storage, shape, "float32", "c4", 0, stride)


def lower_binary(ctx: Lowering, function: Binary, a: View, b: View, y: View) -> list[Dispatch]:
    """The dispatch of y = f(a, b) for views of one layout that broadcast to y's shape."""
    if 0 in y.shape:
        return []
    axes = {
        "operand": "int" if a.is_integer else "float",
        "result": "int" if y.is_integer else "float",
    }
    masked = False
    if y.layout == "c4":
        walk, splats = c4_walk(y, (a, b))
        masked = y.shape[1] % 4 != 0
        # (batch, channel block, ...): the blocks of a masked result are dimension 2 of the kernel
        walk = walk.padded(KERNEL_DIMENSIONS - 1, at=2).padded() if masked else walk.padded()
        axes["width"] = "vec4"
    else:
        walk = linear_walk(y.shape, (a.shape, b.shape))
        splats = (False, False)
        quarter = None if a.is_integer else in_vec4s(walk, (a, b, y))
        if quarter is None:
            axes |= {"width": "scalar", "access": "ssbo"}
        else:
            walk, splats = quarter
            axes["width"] = "vec4"
        walk = walk.padded()
    grid = walk_grid(ctx.caps, walk)
    return [
        ctx.dispatch(
            "binary",
            {"a": a, "b": b, "y": y},
            {
                "size": walk.size,
                "a_stride": walk.strides[0],
                "b_stride": walk.strides[1],
                "y_stride": walk.strides[2],
                "channels": y.shape[1] if masked else 0,
            },
            {
                **grid.spec,
                "kind": int(function),
                "a_splat": int(splats[0]),
                "b_splat": int(splats[1]),
                "masked": int(masked),
            },
            grid.count,
            **axes,
        )
    ]
