"""Hardmax: one at the first of the largest elements along an axis, zero elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.ir import Array, Value
from vkconv.ops.arg_extreme import arg_extreme
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.one_hot import one_hot
from vkconv.ops.registry import operator
from vkconv.ops.rows import too_long
from vkconv.ops.softmax import AlongAxis


@operator("Hardmax", since=(1, 11, 13))
class Hardmax(AlongAxis):
    """y = 1 at the first largest element along the axis, else 0; the axis as for Softmax."""

    logarithmic: ClassVar[bool] = False

    def reference(self, x: Array) -> Array:
        y = np.zeros(self.split(x.shape), x.dtype)
        if x.size:
            np.put_along_axis(y, np.argmax(x.reshape(y.shape), 1)[:, None], 1, 1)
        return y.reshape(x.shape)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_long(self.split(outputs[0].dims)[1])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        if not y.span:
            return []
        split = self.split(y.shape)
        largest = replace(ctx.scratch(split[0] * split[2], "largest"), dtype="int32")
        values = ctx.constant(np.array([0, 1], np.float32), "off and on")
        source = ctx.operand(x, "linear")
        return [
            *arg_extreme(ctx, source, largest, split, smallest=False, nan_first=True),
            *one_hot(ctx, largest, values, y, split),
        ]
