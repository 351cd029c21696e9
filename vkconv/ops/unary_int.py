"""Functions of one integer element, and Not: the kernel ``unary_int``, linear."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator


class IntegerFunction(IntEnum):
    """``KIND_<name>`` of ``shaders/unary_int.comp`` (a test compares the two)."""

    ABS = 0
    NEG = 1
    SIGN = 2
    CLIP = 3
    NOT = 4


def lower_unary_int(
    ctx: Lowering, x: View, y: View, function: IntegerFunction, low: int = 0, high: int = 0
) -> list[Dispatch]:
    """The dispatch of y = f(x) for linear views; ``low`` and ``high`` are the bounds of CLIP."""
    if not y.span:
        return []
    grid = spread(ctx.caps, y.span)
    return [
        ctx.dispatch(
            "unary_int",
            {"x": x, "y": y},
            {"count": y.span, "low": low, "high": high},
            {**grid.spec, "kind": int(function)},
            grid.count,
        )
    ]


@operator("Not", since=(1,))
class Not(Operator):
    """y = not x, element by element, of bool."""

    device_dtypes: ClassVar[frozenset[str]] = frozenset({"bool"})

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        return np.logical_not(x)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        assert x is not None
        return lower_unary_int(ctx, ctx.operand(x, "linear"), y.on_device, IntegerFunction.NOT)
