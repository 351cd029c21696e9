"""Range: an arithmetic progression."""

from __future__ import annotations

import math

import numpy as np

from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.operator import Operator, UnknownShapeError
from vkconv.ops.registry import operator

#: three numbers of a run can ask for any length
LONGEST = 1 << 28


@operator("Range", since=(11, 27))
class Range(Operator):
    """y[i] = start + i * delta for i < max(ceil((limit - start) / delta), 0), all scalars.

    Folded when the inputs are constants; else the length is known only at run time, on the host.
    """

    stash_type: int = 1

    def infer(self, start: Value, limit: Value, delta: Value) -> TensorType:
        bounds = [v.array for v in (start, limit, delta)]
        if bounds[0] is None or bounds[1] is None or bounds[2] is None:
            raise UnknownShapeError("the bounds are computed by the model")
        return TensorType(start.dtype, (_count(bounds[0], bounds[1], bounds[2]),))

    def reference(self, start: Array, limit: Array, delta: Array) -> Array:
        # floats of 16 bits are summed in float32, as stash_type says
        count = _count(start, limit, delta)
        if count > LONGEST:
            raise InvalidInputError(f"{count} numbers are more than the {LONGEST} that it may make")
        kind = np.float32 if start.dtype == np.float16 else start.dtype
        steps = np.arange(count).astype(kind)
        progression = start.reshape(()).astype(kind) + steps * delta.reshape(()).astype(kind)
        return np.asarray(progression.astype(start.dtype))


def _count(start: Array, limit: Array, delta: Array) -> int:
    if start.size != 1 or limit.size != 1 or delta.size != 1:
        raise InvalidModelError("start, limit and delta must be scalars")
    first: float = start.item()
    last: float = limit.item()
    step: float = delta.item()
    if step == 0 or not all(math.isfinite(v) for v in (first, last, step)):
        raise InvalidModelError(f"there is no range from {first} to {last} in steps of {step}")
    if isinstance(first, int) and isinstance(last, int) and isinstance(step, int):
        return max(-((first - last) // step), 0)  # exact beyond 2^53
    return max(math.ceil((last - first) / step), 0)
