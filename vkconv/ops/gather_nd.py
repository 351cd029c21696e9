"""GatherND: slices of a tensor, picked by tuples of indices."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import row_major
from vkconv.ops.grids import spread
from vkconv.ops.indexing import require_indices, require_inside, wrap
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator

#: indices in one tuple that the kernels' push constants have room for
TUPLE = 8
#: below that the lanes run over slices instead of along them
SHORT_SLICE = 16


@operator("GatherND", since=(11, 12, 13))
class GatherND(Operator):
    """y[b, t, ...] = x[b, i0, i1, ..., ...] with (i0, i1, ...) = indices[b, t], for ``batch_dims``
    axes b."""

    batch_dims: int = 0
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def infer(self, x: Value, indices: Value) -> TensorType:
        b = self.batch_dims
        if not 0 <= b < max(min(len(x.dims), len(indices.dims)), 1):
            raise InvalidModelError(
                f"batch_dims is {b} for ranks {len(x.dims)} and {len(indices.dims)}"
            )
        if x.dims[:b] != indices.dims[:b]:
            raise InvalidModelError(f"batches of shapes {x.dims[:b]} and {indices.dims[:b]}")
        require_tuples(indices, x.dims, b)
        depth = indices.dims[-1]
        return TensorType(x.dtype, (*indices.dims[:-1], *x.dims[b + depth :]))

    def reference(self, x: Array, indices: Array) -> Array:
        b, depth = self.batch_dims, indices.shape[-1]
        axes = x.shape[b : b + depth]
        batches = prod(x.shape[:b])
        places = flat_places(indices.reshape(-1, depth), axes).reshape(batches, -1)
        slices = x.reshape(batches, prod(axes), -1) if x.size else x.reshape(batches, prod(axes), 0)
        picked = slices[np.arange(batches)[:, None], places]
        return picked.reshape(*indices.shape[:-1], *x.shape[b + depth :])

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return too_long_tuples(inputs[1])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, indices), y = inputs, outputs[0].on_device
        assert x is not None and indices is not None
        if not y.span:
            return []
        b, depth = self.batch_dims, indices.shape[-1]
        axes = x.shape[b : b + depth]
        inner = prod(x.shape[b + depth :])
        tuples = prod(indices.shape[:-1])
        # short slices would leave most lanes idle
        over_tuples = inner < SHORT_SLICE
        grid = spread(ctx.caps, tuples) if over_tuples else spread(ctx.caps, inner, tuples)
        size, stride = tuple_strides(axes, inner)
        return [
            ctx.dispatch(
                "gather_nd",
                {"x": ctx.operand(x, "linear"), "indices": ctx.operand(indices, "linear"), "y": y},
                {
                    "tuples": tuples,
                    "batch_tuples": prod(indices.shape[b:-1]),
                    "batch_step": prod(x.shape[b:]),
                    "inner": inner,
                    "size": size,
                    "stride": stride,
                },
                {**grid.spec, "depth": depth, "lanes_over_tuples": int(over_tuples)},
                grid.count,
            )
        ]


def require_tuples(indices: Value, shape: Sequence[int], batch_dims: int = 0) -> None:
    """Raises InvalidModelError unless each last row of ``indices`` is a tuple that fits the axes
    after the batch."""
    depth = indices.dims[-1] if indices.dims else 0
    axes = shape[batch_dims : batch_dims + depth]
    if not 0 < depth <= len(axes):
        raise InvalidModelError(f"tuples of {depth} indices for data of shape {tuple(shape)}")
    for d, size in enumerate(axes):
        require_indices(Value(indices.name, indices.type), size, batch_dims + d)
        if indices.array is not None:
            require_inside(indices.array[..., d], size, batch_dims + d)


def flat_places(tuples: Array, axes: Sequence[int]) -> Array:
    """(T, depth) tuples as T places in the dense array of those axes."""
    places = np.zeros(len(tuples), np.int64)
    for d, (size, stride) in enumerate(zip(axes, row_major(axes), strict=True)):
        places += wrap(tuples[:, d], size) * stride
    return places


def too_long_tuples(indices: Value | None) -> str | None:
    """Why the kernels can't take such indices, or None."""
    assert indices is not None
    return f"tuples of more than {TUPLE} indices" if indices.dims[-1] > TUPLE else None


def tuple_strides(axes: Sequence[int], inner: int = 1) -> tuple[list[int], list[int]]:
    """Sizes, and strides in elements, of the indexed axes, padded to what the kernels have."""
    missing = TUPLE - len(axes)
    return [*axes, *[1] * missing], [*(s * inner for s in row_major(axes)), *[0] * missing]
