"""GatherElements: along an axis, every element picks its own index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import Dim, collapse, row_major
from vkconv.ops.grids import spread
from vkconv.ops.indexing import require_indices, wrap
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import normalise_axis

#: dimensions of strided_place in ``include/indexing.glsl``
STRIDED_DIMS = 6


@operator("GatherElements", since=(11, 13))
class GatherElements(Operator):
    """y[i0, i1, ...] = x[i0, indices[i0, i1, ...], ...], the index in place of that of ``axis``.

    y has the shape of ``indices``, which may be smaller than x along the other axes.
    """

    axis: int = 0
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, x: Value, indices: Value) -> TensorType:
        axis = normalise_axis(self.axis, len(x.dims))
        require_smaller(x.dims, indices.dims, axis)
        require_indices(indices, x.dims[axis], axis)
        return TensorType(x.dtype, indices.dims)

    def reference(self, x: Array, indices: Array) -> Array:
        axis = normalise_axis(self.axis, x.ndim)
        places: list[Array] = list(np.indices(indices.shape, sparse=True))
        places[axis] = wrap(indices, x.shape[axis])
        return x[tuple(places)]

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x, indices = inputs
        assert x is not None and indices is not None
        return too_many_strides(
            strided_dims(indices.dims, x.dims, normalise_axis(self.axis, len(x.dims)))
        )

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, indices), y = inputs, outputs[0].on_device
        assert x is not None and indices is not None
        source, picked = ctx.operand(x, "linear"), ctx.operand(indices, "linear")
        return gather_elements(ctx, source, picked, y, normalise_axis(self.axis, len(x.shape)))


def gather_elements(ctx: Lowering, x: View, indices: View, y: View, axis: int) -> list[Dispatch]:
    """Dispatches of y = x at ``indices`` along ``axis``; all linear, y and the indices of one
    shape."""
    if not y.span:
        return []
    dims = strided_dims(y.shape, x.shape, axis)
    missing = STRIDED_DIMS - len(dims)
    grid = spread(ctx.caps, y.span)
    return [
        ctx.dispatch(
            "gather_elements",
            {"x": x, "indices": indices, "y": y},
            {
                "count": y.span,
                "axis_size": x.shape[axis],
                "axis_stride": row_major(x.shape)[axis],
                "size": [1] * missing + [d.size for d in dims],
                "x_stride": [0] * missing + [d.x for d in dims],
            },
            {**grid.spec, "dims": len(dims)},
            grid.count,
        )
    ]


def strided_dims(dense: Sequence[int], x: Sequence[int], axis: int) -> list[Dim]:
    """The loops over a dense tensor beside x, whose stride along ``axis`` counts as 0."""
    strides = [0 if d == axis else s for d, s in enumerate(row_major(x))]
    return collapse([Dim(*d) for d in zip(dense, strides, row_major(dense), strict=True)])


def too_many_strides(dims: Sequence[Dim]) -> str | None:
    """Why the kernels can't walk through ``dims``, or None."""
    if len(dims) > STRIDED_DIMS:
        return f"more than {STRIDED_DIMS} dimensions that do not merge"
    return None


def require_smaller(x: Sequence[int], indices: Sequence[int], axis: int) -> None:
    """Raises InvalidModelError unless the indices fit x, but for their size along ``axis``."""
    fits = len(x) == len(indices) and all(
        d == axis or mine <= whole for d, (whole, mine) in enumerate(zip(x, indices, strict=True))
    )
    if not fits:
        raise InvalidModelError(
            f"indices of shape {tuple(indices)} do not fit data of shape {tuple(x)}"
        )
