"""IsNaN and IsInf: which elements are no numbers; the kernel ``classify``, linear."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator


class FloatClass(IntFlag):
    """``CLASS_<name>`` of ``shaders/classify.comp`` (a test compares the two)."""

    NAN = 1
    POSITIVE_INFINITY = 2
    NEGATIVE_INFINITY = 4


class Classifying(Operator):
    """y = whether x belongs to one of ``classes()``; x of any shape."""

    result_dtypes: ClassVar[frozenset[str]] = frozenset({"bool"})

    def classes(self) -> FloatClass:
        raise NotImplementedError

    def infer(self, x: Value) -> TensorType:
        return TensorType("bool", x.dims)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), y = inputs, outputs[0].on_device
        assert x is not None
        if not y.span:
            return []
        grid = spread(ctx.caps, y.span)
        return [
            ctx.dispatch(
                "classify",
                {"x": ctx.operand(x, "linear"), "y": y},
                {"count": y.span},
                {**grid.spec, "kinds": int(self.classes())},
                grid.count,
            )
        ]


@operator("IsNaN", since=(9, 13, 20))
class IsNaN(Classifying):
    """y = whether x is NaN."""

    def classes(self) -> FloatClass:
        return FloatClass.NAN

    def reference(self, x: Array) -> Array:
        return np.isnan(x)


@operator("IsInf", since=(10, 20))
class IsInf(Classifying):
    """y = whether x is infinite, of the signs that are asked for."""

    detect_negative: int = 1
    detect_positive: int = 1

    def classes(self) -> FloatClass:
        found = FloatClass(0)
        if self.detect_positive:
            found |= FloatClass.POSITIVE_INFINITY
        if self.detect_negative:
            found |= FloatClass.NEGATIVE_INFINITY
        return found

    def reference(self, x: Array) -> Array:
        positive = np.isposinf(x) & bool(self.detect_positive)
        return np.asarray(positive | (np.isneginf(x) & bool(self.detect_negative)))
