"""Constant and ConstantOfShape: tensors that need no input data. Folded when a model is planned."""

from __future__ import annotations

import dataclasses

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints


@operator("Constant", since=(1, 9, 11, 12, 13, 19, 21, 23, 24, 25))
class Constant(Operator):
    """The tensor in the one attribute that is set (the reader has made a sparse one dense)."""

    value: Array | None = None
    sparse_value: Array | None = None
    value_float: float | None = None
    value_floats: tuple[float, ...] | None = None
    value_int: int | None = None
    value_ints: tuple[int, ...] | None = None
    value_string: str | None = None
    value_strings: tuple[str, ...] | None = None

    def infer(self) -> TensorType:
        array = self.reference()
        dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
        return TensorType(dtype, array.shape)

    def reference(self) -> Array:
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        if len(given) != 1:
            raise InvalidModelError(
                f"exactly one of the attributes {', '.join(names)} must be set, not {len(given)}"
            )
        ((name, value),) = given.items()
        if name in ("value", "sparse_value"):
            return np.asarray(value)
        kinds = {"float": np.float32, "int": np.int64, "string": object}
        return np.array(value, kinds[name.removeprefix("value_").removesuffix("s")])


@operator("ConstantOfShape", since=(9, 20, 21, 23, 24, 25))
class ConstantOfShape(Operator):
    """y = a tensor of the shape that the input lists, filled with ``value`` (float32 0)."""

    value: Array | None = None

    def infer(self, shape: Value) -> TensorType:
        dims = known_ints(shape, "the input shape") or ()
        if min(dims, default=0) < 0:
            raise InvalidModelError(f"{list(dims)} is no shape")
        return TensorType(self._fill().dtype.name, dims)

    def reference(self, shape: Array) -> Array:
        return np.full(tuple(int(d) for d in shape), self._fill())

    def _fill(self) -> Array:
        if self.value is None:
            return np.zeros((), np.float32)
        if self.value.size != 1:
            raise InvalidModelError(f"attribute 'value' has {self.value.size} elements, not one")
        return self.value.reshape(())
