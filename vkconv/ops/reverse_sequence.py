"""ReverseSequence: the first so many steps of each sequence of a batch in reverse order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator


@operator("ReverseSequence", since=(10, 28))
class ReverseSequence(Operator):
    """y[t, b] = x[lengths[b] - 1 - t, b] for t < lengths[b], else x[t, b]; the two axes are 0 and 1
    in either order.

    Computed lengths beyond the time axis are clamped to it.
    """

    batch_axis: int = 1
    time_axis: int = 0
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, x: Value, lengths: Value) -> TensorType:
        if {self.batch_axis, self.time_axis} != {0, 1} or len(x.dims) < 2:
            raise InvalidModelError(
                f"batch_axis {self.batch_axis} and time_axis {self.time_axis} are not 0 and 1 of "
                f"{x.known_type}"
            )
        times, batches = x.dims[self.time_axis], x.dims[self.batch_axis]
        if lengths.dims != (batches,):
            raise InvalidModelError(f"sequence_lens has shape {lengths.dims}, not ({batches},)")
        array = lengths.array
        if array is not None and array.size and (array.min() < 0 or array.max() > times):
            raise InvalidModelError(f"a sequence length is outside [0, {times}]")
        return x.known_type

    def reference(self, x: Array, lengths: Array) -> Array:
        y = x.copy()
        source, target = (np.moveaxis(a, self.batch_axis, 0) for a in (x, y))
        for b, length in enumerate(np.clip(lengths, 0, x.shape[self.time_axis])):
            target[b, :length] = source[b, :length][::-1]
        return y

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, lengths), y = inputs, outputs[0].on_device
        assert x is not None and lengths is not None
        if not y.span:
            return []
        times, batches = y.shape[self.time_axis], y.shape[self.batch_axis]
        inner = prod(y.shape[2:])
        grid = spread(ctx.caps, inner, batches, times)
        return [
            ctx.dispatch(
                "reverse_sequence",
                {"x": ctx.operand(x, "linear"), "lengths": ctx.operand(lengths, "linear"), "y": y},
                {"times": times, "batches": batches, "inner": inner},
                {**grid.spec, "batch_first": int(self.batch_axis == 0)},
                grid.count,
            )
        ]
