"""Shape and Size: facts about a tensor's type. Always folded, whatever the tensor holds."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vkconv.ir import Array, TensorType, Value
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator


@operator("Shape", since=(1, 13, 15, 19, 21, 23, 24, 25))
class Shape(Operator):
    """y = the dimensions ``[start, end)`` of x, as int64; negative bounds count from the end."""

    start: int = 0
    end: int | None = None
    needs_types_only: ClassVar[bool] = True

    def infer(self, x: Value) -> TensorType:
        return TensorType("int64", (len(x.dims[self.start : self.end]),))

    def reference(self, x: Array) -> Array:
        return np.array(x.shape[self.start : self.end], np.int64)


@operator("Size", since=(1, 13, 19, 21, 23, 24, 25))
class Size(Operator):
    """y = the number of elements of x, an int64 scalar."""

    needs_types_only: ClassVar[bool] = True

    def infer(self, x: Value) -> TensorType:
        return TensorType("int64", ())

    def reference(self, x: Array) -> Array:
        return np.array(x.size, np.int64)
