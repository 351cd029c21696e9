"""Trigonometric and hyperbolic functions and their inverses: the kernel ``trigonometric``, any
layout.

Written out in the shader, because the built-in functions of Vulkan are only good to 2^-11 near
zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4
from vkconv.ops.unary import lower_elementwise


class Trigonometry(IntEnum):
    """``TRIG_<name>`` of ``shaders/include/trigonometry.glsl`` (a test compares the two)."""

    SIN = 0
    COS = 1
    TAN = 2
    ASIN = 3
    ACOS = 4
    ATAN = 5
    SINH = 6
    COSH = 7
    ASINH = 8
    ACOSH = 9
    ATANH = 10


class Trigonometric(Operator):
    """y = f(x), x of any shape, in radians."""

    overwrites: ClassVar[frozenset[int]] = frozenset({0})
    function: ClassVar[Trigonometry]
    compute: ClassVar[Callable[[Array], Array]]

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            return np.asarray(type(self).compute(wide)).astype(x.dtype)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), y = inputs, outputs[0].on_device
        assert x is not None
        source = ctx.operand(x, y.layout)
        return lower_elementwise(ctx, "trigonometric", source, y, {"kind": int(self.function)})


def _define(
    op_type: str,
    since: tuple[int, ...],
    function: Trigonometry,
    compute: Callable[[Array], Array],
    formula: str,
) -> None:
    members: dict[str, object] = {
        "function": function,
        "compute": staticmethod(compute),
        "__doc__": formula,
        "__module__": __name__,
        "__annotations__": {},
    }
    operator(op_type, since=since)(type(op_type, (Trigonometric,), members))


_define("Sin", (7, 22), Trigonometry.SIN, np.sin, "y = sin(x)")
_define("Cos", (7, 22), Trigonometry.COS, np.cos, "y = cos(x)")
_define("Tan", (7, 22), Trigonometry.TAN, np.tan, "y = tan(x)")
_define("Asin", (7, 22), Trigonometry.ASIN, np.arcsin, "y = arcsin(x), NaN outside [-1, 1]")
_define("Acos", (7, 22), Trigonometry.ACOS, np.arccos, "y = arccos(x), NaN outside [-1, 1]")
_define("Atan", (7, 22), Trigonometry.ATAN, np.arctan, "y = arctan(x)")
_define("Sinh", (9, 22), Trigonometry.SINH, np.sinh, "y = (e^x - e^-x) / 2")
_define("Cosh", (9, 22), Trigonometry.COSH, np.cosh, "y = (e^x + e^-x) / 2")
_define("Asinh", (9, 22), Trigonometry.ASINH, np.arcsinh, "y = log(x + sqrt(x^2 + 1))")
_define("Acosh", (9, 22), Trigonometry.ACOSH, np.arccosh, "y = log(x + sqrt(x^2 - 1)), NaN below 1")
_define(
    "Atanh", (9, 22), Trigonometry.ATANH, np.arctanh, "y = log((1 + x) / (1 - x)) / 2, |x| <= 1"
)
