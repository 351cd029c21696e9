"""Unique: a tensor without its repetitions."""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array, TensorType, Value
from vkconv.ops.operator import Operator, UnknownShapeError
from vkconv.ops.registry import operator
from vkconv.ops.shapes import normalise_axis


@operator("Unique", since=(11, 28))
class Unique(Operator):
    """(y, indices, inverse_indices, counts): the unique elements, or slices along ``axis``, in
    ascending order, or ``sorted=0`` in that of their first occurrence; where these are, what each
    element became, and how many it stands for. Runs on the host: four outputs, three of which have
    a size that only the run can know."""

    axis: int | None = None
    sorted: int = 1

    def infer(self, x: Value) -> tuple[TensorType, ...]:
        if self.axis is not None:
            normalise_axis(self.axis, len(x.dims))
        if x.array is not None:
            found = self.reference(x.array)
            return tuple(TensorType(x.dtype if a is found[0] else "int64", a.shape) for a in found)
        raise UnknownShapeError("how many elements are unique depends on them")

    def reference(self, x: Array) -> tuple[Array, ...]:
        y, indices, inverse, counts = np.unique(
            x if self.axis is not None else x.reshape(-1),
            return_index=True,
            return_inverse=True,
            return_counts=True,
            axis=self.axis,
        )
        if not self.sorted:
            order = np.argsort(indices)
            ranks = np.empty_like(order)
            ranks[order] = np.arange(len(order))
            y = np.take(y, order, 0 if self.axis is None else self.axis)
            indices, counts, inverse = indices[order], counts[order], ranks[inverse]
        positions = (a.reshape(-1).astype(np.int64) for a in (indices, inverse, counts))
        return (y, *positions)[: self.output_count]
