"""Cast and CastLike: another element type.

On the device every element is a float32 or an int32, so that many casts are views: of floats
upwards, and of integers where nothing can wrap around. float64, uint32, uint64 and text are cast on
the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import DTYPES, Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4
from vkconv.ops.unary import lower_unary


class Casting(Operator):
    """y = x in another type: floats truncate to integers, nonzero is true; ``saturate`` is for
    float8."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        x = inputs[0]
        floats = x is not None and x.dtype in FLOATS and outputs[0].dtype in FLOATS
        return "c4" if floats and is_c4(inputs) else "linear"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        dtype = outputs[0].dtype
        return (replace(x, dtype=dtype),) if _same_on_device(x.dtype, dtype) else None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        source = ctx.operand(x, y.layout)
        if not source.is_integer and not y.is_integer:
            code = Activation.HALF if y.dtype == "float16" else Activation.NONE
            return lower_unary(ctx, source, y, code)
        return lower_cast(ctx, source, y)


def lower_cast(ctx: Lowering, x: View, y: View) -> list[Dispatch]:
    """The dispatch of y = x for linear views of one shape, at least one of them of integers."""
    if not y.span:
        return []
    whole = y.span % 4 == 0 and x.offset % 4 == 0 and y.offset % 4 == 0
    count = y.span // 4 if whole else y.span
    grid = spread(ctx.caps, count)
    bits = 1 if y.dtype == "bool" else min(np.dtype(y.dtype).itemsize * 8, 32)
    return [
        ctx.dispatch(
            "cast",
            {"x": x, "y": y},
            {"count": count},
            {**grid.spec, "bits": bits, "is_signed": int(not y.dtype.startswith("u"))},
            grid.count,
            **{
                "from": "int" if x.is_integer else "float",
                "to": "int" if y.is_integer else "float",
                "width": "vec4" if whole else "scalar",
            },
        )
    ]


def _same_on_device(source: str, target: str) -> bool:
    """Whether the device's elements stay as they are."""
    if source == target or {source, target} <= FLOATS:
        return target != "float16" or source == target
    if source in FLOATS or target in FLOATS:
        return False
    (low, high), (least, most) = _limits(source), _limits(target)
    return least <= low and high <= most


def _limits(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    # int64 is held as int32 on the device
    info = np.iinfo("int32" if dtype == "int64" else dtype)
    return int(info.min), int(info.max)


def convert(x: Array, dtype: str) -> Array:
    """The array in another type, as numpy has it; text holds numbers as Python writes them."""
    if dtype == "string":
        if x.dtype.kind == "f":
            # the shortest text that gives the number back; NumPy 2 would name the type as well
            text = [
                np.format_float_positional(v, trim="-") if np.isfinite(v) else str(v)
                for v in x.flat
            ]
        else:
            text = [str(int(v)) if x.dtype.kind in "iub" else str(v) for v in x.flat]
        return np.array(text, dtype=object).reshape(x.shape)
    with np.errstate(all="ignore"):
        if x.dtype.kind in "OSU":
            numbers = [float(v) if dtype.startswith("float") else int(float(v)) for v in x.flat]
            return np.array(numbers).reshape(x.shape).astype(dtype)
        return x.astype(dtype)


@operator("Cast", since=(1, 6, 9, 13, 19, 21, 23, 24, 25, 28))
class Cast(Casting):
    """y = x in the type ``to``, a number of TensorProto.DataType (a name in version 1)."""

    to: int | str
    saturate: int = 1
    round_mode: str = "up"

    def target(self) -> str:
        names = dict(enumerate(DTYPES, 1))
        name = names.get(self.to, "") if isinstance(self.to, int) else self.to.lower()
        name = {"float": "float32", "double": "float64"}.get(name, name)
        if name not in DTYPES:
            raise InvalidModelError(f"casts to element type {self.to}, which is not supported")
        return name

    def infer(self, x: Value) -> TensorType:
        return TensorType(self.target(), x.dims)

    def reference(self, x: Array) -> Array:
        return convert(x, self.target())


@operator("CastLike", since=(15, 19, 21, 23, 24, 25))
class CastLike(Casting):
    """y = x in the type of the second input, whose values don't matter."""

    saturate: int = 1
    round_mode: str = "up"

    def infer(self, x: Value, like: Value) -> TensorType:
        return TensorType(like.dtype, x.dims)

    def reference(self, x: Array, like: Array) -> Array:
        return convert(x, "string" if like.dtype.kind in "OSU" else like.dtype.name)
