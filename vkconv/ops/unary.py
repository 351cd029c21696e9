"""Functions of one float element: what they share, and those without attributes.

A function is a row of the table below or a class in ``activations.py``; all run on the kernel
``unary`` in either layout. ``Unary.activation`` is what fusion asks for: the same function in
another kernel's epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4
from vkconv.ops.unary_int import IntegerFunction, lower_unary_int

Function = Callable[[Array], Array]


class Unary(Operator):
    """y = f(x), x of any shape. ``activation`` gives f as code, alpha and beta of
    ``activations.glsl``."""

    overwrites: ClassVar[frozenset[int]] = frozenset({0})

    def activation(self) -> tuple[Activation, float, float]:
        raise NotImplementedError

    def apply(self, x: Array) -> Array:
        """The function on a float32 or float64 array."""
        raise NotImplementedError

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            if x.dtype == np.float16:
                return self.apply(x.astype(np.float32)).astype(np.float16)
            return np.asarray(self.apply(x)).astype(x.dtype)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        assert x is not None
        return lower_unary(ctx, ctx.operand(x, y.on_device.layout), y.on_device, *self.activation())


class UnaryWithIntegers(Unary):
    """A function that also takes int32, which a kernel of its own computes."""

    device_dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "float16", "int32"})
    integer_function: ClassVar[IntegerFunction]

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        if x is None or not y.on_device.is_integer:
            return super().lower(ctx, inputs, outputs)
        return lower_unary_int(ctx, ctx.operand(x, "linear"), y.on_device, self.integer_function)


def lower_unary(
    ctx: Lowering, x: View, y: View, code: Activation, alpha: float = 0.0, beta: float = 0.0
) -> list[Dispatch]:
    """The dispatch of y = f(x) for views of one layout and shape."""
    push = {"alpha": alpha, "beta": beta}
    return lower_elementwise(ctx, "unary", x, y, {"kind": int(code)}, push)


def lower_elementwise(
    ctx: Lowering,
    kernel: str,
    x: View,
    y: View,
    spec: Mapping[str, int],
    push: Mapping[str, float] | None = None,
) -> list[Dispatch]:
    """The dispatch of a kernel that has the push constants and variants of ``unary``, on views of
    one layout and shape; ``spec`` and ``push`` are what it has besides."""
    batches, tail = 1, 0
    axes = {"width": "vec4"}
    if y.layout == "c4":
        batches, blocks, h, w = c4_dims(y.shape)
        channels = y.shape[1]
        tail = channels % 4
        count, whole = blocks * h * w, channels // 4 * h * w
    elif y.span % 4 == 0 and x.offset % 4 == 0 and y.offset % 4 == 0:
        count = whole = y.span // 4
    else:
        count = whole = y.span
        axes = {"width": "scalar", "access": "ssbo"}
    if count * batches == 0:
        return []
    grid = spread(ctx.caps, count, 1, batches)
    sizes = {"batches": batches, "count": count, "whole": whole, "tail": tail}
    return [
        ctx.dispatch(
            kernel,
            {"x": x, "y": y},
            {**sizes, **(push or {})},
            {**grid.spec, **spec},
            grid.count,
            **axes,
        )
    ]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), by exponentials of non-positive numbers only."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def erf(x: Array) -> Array:
    """2/sqrt(pi) * integral of exp(-t^2) from 0 to x."""
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x)).astype(x.dtype)


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


def _mish(x: Array) -> Array:
    return np.asarray(x * np.tanh(softplus(x)))


def _softsign(x: Array) -> Array:
    return np.asarray(x / (1 + np.abs(x)))


def _define(
    op_type: str,
    since: tuple[int, ...],
    code: Activation,
    function: Function,
    formula: str,
    parameters: tuple[float, float] = (0.0, 0.0),
    integers: IntegerFunction | None = None,
) -> None:
    """Register an operator without attributes."""

    def activation(self: Unary) -> tuple[Activation, float, float]:
        return (code, *parameters)

    def apply(self: Unary, x: Array) -> Array:
        return function(x)

    members: dict[str, object] = {"activation": activation, "apply": apply, "__doc__": formula}
    base: type[Unary] = Unary
    if integers is not None:
        base = UnaryWithIntegers
        members["integer_function"] = integers
    members |= {"__module__": __name__, "__annotations__": {}}
    operator(op_type, since=since)(type(op_type, (base,), members))


_define("Abs", (1, 6, 13), Activation.ABS, np.abs, "y = |x|", integers=IntegerFunction.ABS)
_define("Neg", (1, 6, 13), Activation.NEG, np.negative, "y = -x", integers=IntegerFunction.NEG)
_define("Sign", (9, 13), Activation.SIGN, np.sign, "y = -1, 0 or 1", integers=IntegerFunction.SIGN)
_define("Sqrt", (1, 6, 13), Activation.SQRT, np.sqrt, "y = sqrt(x), NaN below zero")
_define("Exp", (1, 6, 13), Activation.EXP, np.exp, "y = e^x")
_define("Log", (1, 6, 13), Activation.LOG, np.log, "y = log(x): NaN below zero, -inf at zero")
_define("Reciprocal", (1, 6, 13), Activation.RECIPROCAL, np.reciprocal, "y = 1 / x")
_define("Floor", (1, 6, 13), Activation.FLOOR, np.floor, "y = largest integer <= x")
_define("Ceil", (1, 6, 13), Activation.CEIL, np.ceil, "y = smallest integer >= x")
_define("Round", (11, 22), Activation.ROUND, np.rint, "y = nearest integer, halves to even")
_define("Sigmoid", (1, 6, 13), Activation.SIGMOID, sigmoid, "y = 1 / (1 + e^-x)")
_define("Tanh", (1, 6, 13), Activation.TANH, np.tanh, "y = tanh(x)")
_define("Erf", (9, 13), Activation.ERF, erf, "y = erf(x)")
_define("Softplus", (1, 22), Activation.SOFTPLUS, softplus, "y = log(1 + e^x)")
_define("Softsign", (1, 22), Activation.SOFTSIGN, _softsign, "y = x / (1 + |x|)")
_define("Mish", (18, 22), Activation.MISH, _mish, "y = x tanh(log(1 + e^x))")
_define(
    "HardSwish",
    (14, 22),
    Activation.HARD_SWISH,
    _hard_swish,
    "y = x max(0, min(1, x / 6 + 1/2))",
    parameters=(1 / 6, 0.5),
)
