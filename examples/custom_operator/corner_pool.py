"""CornerPool for vkconv: one Python file and one shader, outside of vkconv.

Corner pooling (H. Law, J. Deng, "CornerNet: Detecting Objects as Paired Keypoints", 2018) is in no
ONNX opset, and detectors that need it export it as an operator of their own domain.

    vkconv compile-shader corner_pool.comp      writes corner_pool_spv.py, which is shipped
"""

from __future__ import annotations

from collections.abc import Sequence

import corner_pool_spv
import numpy as np

from vkconv import InvalidModelError, register_operator
from vkconv.custom_operators import (
    Array,
    Dispatch,
    Layout,
    Lowering,
    Operator,
    Tensor,
    TensorType,
    Value,
    c4_dims,
    spread,
)

#: where the running maximum starts: (axis, whether at the end of it)
DIRECTIONS = {"top": (2, True), "bottom": (2, False), "left": (3, True), "right": (3, False)}


@register_operator("CornerPool", domain="com.example", kernels=[corner_pool_spv])
class CornerPool(Operator):
    """y (N, C, H, W): the maximum of x from each pixel on, along a row or a column.

    direction top: y[.., i, :] = max of x[.., i', :] over i' >= i; bottom: i' <= i; left and right
    the same along the columns j.
    """

    direction: str = "top"

    def infer(self, x: Value) -> TensorType:
        if self.direction not in DIRECTIONS:
            raise InvalidModelError(f"direction '{self.direction}' is not one of {[*DIRECTIONS]}")
        if len(x.dims) != 4:
            raise InvalidModelError(f"x has shape {x.dims}, expected (N, C, H, W)")
        return x.known_type

    def reference(self, x: Array) -> Array:
        axis, from_end = DIRECTIONS[self.direction]
        ordered = np.flip(x, axis) if from_end else x
        y = np.maximum.accumulate(ordered, axis)
        return np.flip(y, axis) if from_end else y

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        assert x is not None
        batches, blocks, height, width = c4_dims(y.shape)
        axis, from_end = DIRECTIONS[self.direction]
        # a column's pixels are a row apart, and columns are neighbours; a row's the other way round
        step, count, stride = (width, width, 1) if axis == 2 else (1, height, width)
        steps = height if axis == 2 else width
        push = {
            "batches": batches,
            "lines": blocks * count,
            "line_count": count,
            "line_stride": stride,
            "map": height * width,
            "first": (steps - 1) * step if from_end else 0,
            "step": -step if from_end else step,
            "steps": steps,
        }
        grid = spread(ctx.caps, blocks * count, 1, batches)
        return [
            ctx.dispatch(
                "com.example.corner_pool",
                {"x": ctx.operand(x, "c4"), "y": y.on_device},
                push,
                grid.spec,
                grid.count,
            )
        ]
