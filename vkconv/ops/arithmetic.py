"""Arithmetic of two or more tensors with broadcasting: Add to Mod, PRelu, and the variadic Max,
Min, Sum, Mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.binary import (
    BinaryOperator,
    broadcast_layout,
    broadcast_operand,
    in_float32,
    lower_binary,
    require_same_dtype,
    too_many_dimensions,
)
from vkconv.ops.binary_codes import Binary
from vkconv.ops.float_mod import lower_float_mod
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import ARITHMETIC, FLOATS, INTEGERS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


@operator("Add", since=(1, 6, 7, 13, 14))
class Add(BinaryOperator):
    """y = a + b."""

    function: ClassVar[Binary] = Binary.ADD

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a + b)


@operator("Sub", since=(1, 6, 7, 13, 14))
class Sub(BinaryOperator):
    """y = a - b."""

    function: ClassVar[Binary] = Binary.SUB

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a - b)


@operator("Mul", since=(1, 6, 7, 13, 14))
class Mul(BinaryOperator):
    """y = a * b."""

    function: ClassVar[Binary] = Binary.MUL

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a * b)


def truncated_quotient(a: Array, b: Array) -> Array:
    """C's integer division, which rounds toward zero; 0 where b is 0 (C leaves that undefined)."""
    safe = np.where(b == 0, 1, b).astype(b.dtype)
    floor = a // safe
    inexact = floor * safe != a
    toward_zero = floor + (inexact & ((a < 0) != (safe < 0)))
    return np.where(b == 0, 0, toward_zero).astype(a.dtype)


@operator("Div", since=(1, 6, 7, 13, 14))
class Div(BinaryOperator):
    """y = a / b; of integers, truncated toward zero."""

    function: ClassVar[Binary] = Binary.DIV

    def reference(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(a / b) if a.dtype.kind == "f" else truncated_quotient(a, b)


@operator("Mod", since=(10, 13, 28))
class Mod(BinaryOperator):
    """Remainder of a / b, with the sign of b (fmod=0, integers only) or of a (fmod=1)."""

    # the remainder of narrow integers is as narrow
    device_dtypes: ClassVar[frozenset[str]] = FLOATS | (INTEGERS - {"bool", "int64"})
    fmod: int = 0

    def infer(self, a: Value, b: Value) -> TensorType:
        if self.fmod == 0 and a.dtype.startswith("float") and self.version < 28:
            raise InvalidModelError("fmod is 0, which is for integers only")
        return super().infer(a, b)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "linear"

    def reference(self, a: Array, b: Array) -> Array:
        if a.dtype.kind == "f":
            return np.asarray(np.fmod(a, b) if self.fmod else np.mod(a, b))
        remainder = a - truncated_quotient(a, b) * b
        if self.fmod:
            return np.asarray(remainder)
        return np.asarray(
            remainder + np.where((remainder != 0) & ((remainder < 0) != (b < 0)), b, 0)
        )

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        a, b = (broadcast_operand(ctx, x, y) for x in inputs if x is not None)
        if not y.is_integer:
            return lower_float_mod(ctx, a, b, y, floored=not self.fmod)
        return lower_binary(ctx, Binary.REMAINDER if self.fmod else Binary.MOD, a, b, y)


@operator("Pow", since=(1, 7, 12, 13, 15))
class Pow(BinaryOperator):
    """y = a^b in the type of a; the types may differ since version 12."""

    function: ClassVar[Binary] = Binary.POW

    def infer(self, a: Value, b: Value) -> TensorType:
        if self.version < 12:
            require_same_dtype(a, b)
        return TensorType(a.dtype, broadcast_shapes(a.dims, b.dims))

    def reference(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            if a.dtype.kind == "f":
                return np.asarray(np.power(a, b.astype(np.float64)).astype(a.dtype))
            if b.dtype.kind == "f":
                return np.power(a.astype(np.float64), b).astype(a.dtype)
            # numpy refuses negative exponents of integers: the result is 0, but for bases 1 and -1
            positive = np.power(a, np.maximum(b, 0))
            inverse = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0))
            return np.where(b < 0, inverse, positive).astype(a.dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        a, b = inputs
        assert a is not None and b is not None
        convertible = b.is_constant and a.dtype in FLOATS
        same = b.dtype == a.dtype or {a.dtype, b.dtype} <= FLOATS
        if not same and not convertible:
            return f"the kernel does not mix base {a.dtype} and exponent {b.dtype}"
        return too_many_dimensions(inputs, outputs)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        a, b = inputs
        assert a is not None and b is not None
        y = outputs[0].on_device
        exponent = broadcast_operand(ctx, b, y)
        array = b.array
        if array is not None and exponent.is_integer and not y.is_integer:
            exponent = ctx.prepack(array, "float exponent", lambda: array.astype(np.float32))
        return lower_binary(ctx, Binary.POW, broadcast_operand(ctx, a, y), exponent, y)


@operator("PRelu", since=(1, 6, 7, 9, 16))
class PRelu(BinaryOperator):
    """y = x for x >= 0, slope * x below; slope broadcasts to the shape of x."""

    function: ClassVar[Binary] = Binary.PRELU

    def infer(self, x: Value, slope: Value) -> TensorType:
        require_same_dtype(x, slope)
        if broadcast_shapes(x.dims, slope.dims) != x.dims:
            raise InvalidModelError(f"slope of shape {slope.dims} does not broadcast to {x.dims}")
        return x.known_type

    def reference(self, x: Array, slope: Array) -> Array:
        return np.where(x < 0, x * slope, x)


class VariadicOperator(Operator):
    """y = f(f(x0, x1), x2)...: one dispatch per pair, intermediate results in scratch memory."""

    device_dtypes: ClassVar[frozenset[str]] = ARITHMETIC
    function: ClassVar[Binary]

    def infer(self, *inputs: Value) -> TensorType:
        if not inputs:
            raise InvalidModelError("needs at least one input")
        require_same_dtype(*inputs)
        return TensorType(inputs[0].dtype, broadcast_shapes(*[v.dims for v in inputs]))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_many_dimensions(inputs, outputs)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return broadcast_layout(inputs, outputs[0])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        operands = [broadcast_operand(ctx, x, y) for x in inputs if x is not None]
        divisor = self.divisor(len(operands))
        if len(operands) == 1:
            return lower_binary(ctx, Binary.MAX, operands[0], operands[0], y)
        steps: list[Dispatch] = []
        partial = operands[0]
        for i, operand in enumerate(operands[1:], 1):
            last = i == len(operands) - 1 and divisor is None
            shape = broadcast_shapes(partial.shape, operand.shape)
            target = y if last else _scratch_like(ctx, y, shape, i)
            steps += lower_binary(ctx, self.function, partial, operand, target)
            partial = target
        if divisor is not None:
            steps += lower_binary(ctx, Binary.DIV, partial, _scalar(ctx, divisor, y), y)
        return steps

    def divisor(self, count: int) -> float | None:
        """What the chain's value is divided by in the end."""
        return None


def _scalar(ctx: Lowering, value: float, y: View) -> View:
    """A constant of one element in the layout and rank of y."""
    storage = ctx.constant(np.array([value, 0, 0, 0], np.float32), "scalar").storage
    return View(storage, (1,) * len(y.shape), "float32", y.layout, 0, 4)


def _scratch_like(ctx: Lowering, y: View, shape: tuple[int, ...], index: int) -> View:
    """Scratch memory for a tensor of ``shape`` in the layout and dtype of y."""
    if y.layout == "linear":
        elements = int(np.prod(shape))
        return View(ctx.scratch(elements, f"partial {index}").storage, shape, y.dtype, "linear")
    n, blocks, h, w = c4_dims(shape)
    storage = ctx.scratch(n * blocks * h * w * 4, f"partial {index}").storage
    return View(storage, shape, y.dtype, "c4", 0, blocks * h * w * 4)


def _fold(function: Callable[[Array, Array], Array], inputs: Sequence[Array]) -> Array:
    return np.array(reduce(function, inputs))


@operator("Max", since=(1, 6, 8, 12, 13))
class Max(VariadicOperator):
    """y = the largest of all inputs; NaN where one is NaN."""

    function: ClassVar[Binary] = Binary.MAX

    def reference(self, *inputs: Array) -> Array:
        return _fold(np.maximum, inputs)


@operator("Min", since=(1, 6, 8, 12, 13))
class Min(VariadicOperator):
    """y = the smallest of all inputs; NaN where one is NaN."""

    function: ClassVar[Binary] = Binary.MIN

    def reference(self, *inputs: Array) -> Array:
        return _fold(np.minimum, inputs)


@operator("Sum", since=(1, 6, 8, 13))
class Sum(VariadicOperator):
    """y = the sum of all inputs."""

    function: ClassVar[Binary] = Binary.ADD

    def reference(self, *inputs: Array) -> Array:
        return _fold(np.add, [in_float32(x) for x in inputs]).astype(inputs[0].dtype)


@operator("Mean", since=(1, 6, 8, 13))
class Mean(VariadicOperator):
    """y = the mean of all inputs."""

    device_dtypes: ClassVar[frozenset[str]] = FLOATS
    function: ClassVar[Binary] = Binary.ADD

    def divisor(self, count: int) -> float | None:
        return float(count)

    def reference(self, *inputs: Array) -> Array:
        total = _fold(np.add, [in_float32(x) for x in inputs])
        return (total / len(inputs)).astype(inputs[0].dtype)
