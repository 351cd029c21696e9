"""Where: a choice between two tensors, element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.binary import require_same_dtype, too_many_dimensions
from vkconv.ops.broadcasting import in_vec4s, linear_walk, walk_grid
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


@operator("Where", since=(9, 16))
class Where(Operator):
    """y = condition ? a : b, the three broadcast against each other."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, condition: Value, a: Value, b: Value) -> TensorType:
        if condition.dtype != "bool":
            raise InvalidModelError(f"the condition is {condition.dtype}, not bool")
        require_same_dtype(a, b)
        return TensorType(a.dtype, broadcast_shapes(condition.dims, a.dims, b.dims))

    def reference(self, condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_many_dimensions(inputs, outputs)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        if not y.span:
            return []
        condition, a, b = (ctx.operand(x, "linear") for x in inputs if x is not None)
        walk = linear_walk(y.shape, [condition.shape, a.shape, b.shape])
        quarter = in_vec4s(walk, (condition, a, b, y))
        splats: tuple[bool, ...] = (False, False, False)
        if quarter is not None:
            walk, splats = quarter
        walk = walk.padded()
        grid = walk_grid(ctx.caps, walk)
        return [
            ctx.dispatch(
                "where",
                {"condition": condition, "a": a, "b": b, "y": y},
                {
                    "size": walk.size,
                    "condition_stride": walk.strides[0],
                    "a_stride": walk.strides[1],
                    "b_stride": walk.strides[2],
                },
                {
                    **grid.spec,
                    "condition_splat": int(splats[0]),
                    "a_splat": int(splats[1]),
                    "b_splat": int(splats[2]),
                },
                grid.count,
                width="scalar" if quarter is None else "vec4",
            )
        ]
