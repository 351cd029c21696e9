"""Comparisons and logic of two tensors with broadcasting; the results are bool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.binary import BinaryOperator, require_same_dtype
from vkconv.ops.binary_codes import Binary
from vkconv.ops.operator import DEVICE_DTYPES
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


class Comparison(BinaryOperator):
    """y = a ? b, bool; linear, as bool has no C4 form."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, a: Value, b: Value) -> TensorType:
        require_same_dtype(a, b)
        return TensorType("bool", broadcast_shapes(a.dims, b.dims))

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "linear"


@operator("Equal", since=(1, 7, 11, 13, 19))
class Equal(Comparison):
    """y = (a == b); NaN equals nothing."""

    function: ClassVar[Binary] = Binary.EQUAL

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a == b)


@operator("Less", since=(1, 7, 9, 13))
class Less(Comparison):
    """y = (a < b)."""

    function: ClassVar[Binary] = Binary.LESS

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a < b)


@operator("LessOrEqual", since=(12, 16))
class LessOrEqual(Comparison):
    """y = (a <= b)."""

    function: ClassVar[Binary] = Binary.LESS_OR_EQUAL

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a <= b)


@operator("Greater", since=(1, 7, 9, 13))
class Greater(Comparison):
    """y = (a > b)."""

    function: ClassVar[Binary] = Binary.GREATER

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a > b)


@operator("GreaterOrEqual", since=(12, 16))
class GreaterOrEqual(Comparison):
    """y = (a >= b)."""

    function: ClassVar[Binary] = Binary.GREATER_OR_EQUAL

    def reference(self, a: Array, b: Array) -> Array:
        return np.asarray(a >= b)


class Logic(Comparison):
    """y = f(a, b), all of bool."""

    device_dtypes: ClassVar[frozenset[str]] = frozenset({"bool"})


@operator("And", since=(1, 7))
class And(Logic):
    """y = a and b."""

    function: ClassVar[Binary] = Binary.AND

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_and(a, b)


@operator("Or", since=(1, 7))
class Or(Logic):
    """y = a or b."""

    function: ClassVar[Binary] = Binary.OR

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_or(a, b)


@operator("Xor", since=(1, 7))
class Xor(Logic):
    """y = a or b, but not both."""

    function: ClassVar[Binary] = Binary.XOR

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_xor(a, b)
