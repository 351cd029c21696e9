"""ScatterElements, Scatter and ScatterND: a copy of a tensor with some of it replaced, or combined
with updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import row_major
from vkconv.ops.gather_elements import (
    STRIDED_DIMS,
    require_smaller,
    strided_dims,
    too_many_strides,
)
from vkconv.ops.gather_nd import (
    TUPLE,
    flat_places,
    require_tuples,
    too_long_tuples,
    tuple_strides,
)
from vkconv.ops.indexing import require_indices, wrap
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import ARITHMETIC, DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.scatter_kernels import (
    Reduction,
    Targets,
    apply_updates,
    reduction_named,
    scatter,
)
from vkconv.ops.shapes import normalise_axis


@dataclass(eq=False)
class _Scattering(Operator):
    """What the three have in common. Several updates of one place: without a reduction the last
    stays, with one all are combined, in their order."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    reduction: str = "none"

    def _reduction(self) -> Reduction:
        return reduction_named(self.reduction, self.version)

    def _targets(self, x: Sequence[int], indices: Sequence[int]) -> Targets:
        raise NotImplementedError

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        if not updates.size:
            return x.copy()
        targets = self._targets(x.shape, indices.shape)
        y = x.reshape(targets.count, -1).copy()
        apply_updates(
            y, targets.places(indices), updates.reshape(targets.updates, -1), self._reduction()
        )
        return y.reshape(x.shape)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x, indices, _ = inputs
        assert x is not None and indices is not None
        reduction = self._reduction()
        if reduction in (Reduction.ADD, Reduction.MUL) and x.dtype not in ARITHMETIC:
            return f"no kernel combines {x.dtype} by '{self.reduction}'"
        return self._too_many_dimensions(x, indices)

    def _too_many_dimensions(self, x: Value, indices: Value) -> str | None:
        raise NotImplementedError

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, indices, updates), y = inputs, outputs[0].on_device
        assert x is not None and indices is not None and updates is not None
        return scatter(
            ctx,
            ctx.operand(x, "linear"),
            indices,
            ctx.operand(updates, "linear"),
            y,
            self._targets(x.shape, indices.shape),
            self._reduction(),
        )


@dataclass(eq=False)
class _ScatteringElements(_Scattering):
    axis: int = 0

    def infer(self, x: Value, indices: Value, updates: Value) -> TensorType:
        axis = normalise_axis(self.axis, len(x.dims))
        self._reduction()
        require_smaller(x.dims, indices.dims, axis)
        require_indices(indices, x.dims[axis], axis)
        if updates.dims != indices.dims or updates.dtype != x.dtype:
            raise InvalidModelError(
                f"updates {updates.known_type} do not fit indices {indices.known_type} and data "
                f"{x.known_type}"
            )
        return x.known_type

    def _targets(self, x: Sequence[int], indices: Sequence[int]) -> Targets:
        axis = normalise_axis(self.axis, len(x))
        dims = strided_dims(indices, x, axis)[-STRIDED_DIMS:]
        missing = STRIDED_DIMS - len(dims)
        unused = TUPLE - STRIDED_DIMS
        strides = row_major(x)

        def places(array: Array) -> Array:
            coordinates: list[Array] = list(np.indices(array.shape, sparse=True))
            coordinates[axis] = wrap(array, x[axis])
            found = sum(
                (c * s for c, s in zip(coordinates, strides, strict=True)), np.zeros((), np.int64)
            )
            return np.broadcast_to(found, array.shape).reshape(-1)

        return Targets(
            "element",
            prod(x),
            prod(indices),
            {
                "axis_size": x[axis],
                "axis_stride": strides[axis],
                "size": [1] * missing + [d.size for d in dims] + [1] * unused,
                "stride": [0] * missing + [d.x for d in dims] + [0] * unused,
            },
            len(dims),
            places,
        )

    def _too_many_dimensions(self, x: Value, indices: Value) -> str | None:
        return too_many_strides(
            strided_dims(indices.dims, x.dims, normalise_axis(self.axis, len(x.dims)))
        )


@operator("ScatterElements", since=(11, 13, 16, 18))
class ScatterElements(_ScatteringElements):
    """y = x, but y[i0, indices[i0, i1, ...], ...] = updates[i0, i1, ...], the index in place of
    that of ``axis``; or with a reduction what was there combined with the update."""


@operator("Scatter", since=(9, 11))
class Scatter(_ScatteringElements):
    """The older name of ScatterElements without reductions; deprecated since opset 11."""


@operator("ScatterND", since=(11, 13, 16, 18))
class ScatterND(_Scattering):
    """y = x, but y[i0, i1, ...] = updates[t] with (i0, i1, ...) = indices[t]: elements, or slices
    where the tuples have fewer indices than x axes; or with a reduction what was there combined
    with the update."""

    def infer(self, x: Value, indices: Value, updates: Value) -> TensorType:
        self._reduction()
        require_tuples(indices, x.dims)
        wanted = (*indices.dims[:-1], *x.dims[indices.dims[-1] :])
        if updates.dims != wanted or updates.dtype != x.dtype:
            raise InvalidModelError(
                f"updates are {updates.known_type}, not {TensorType(x.dtype, wanted)}"
            )
        return x.known_type

    def _targets(self, x: Sequence[int], indices: Sequence[int]) -> Targets:
        depth = indices[-1]
        axes = x[:depth]
        size, stride = tuple_strides(axes[:TUPLE])

        def places(array: Array) -> Array:
            return flat_places(array.reshape(-1, depth), axes)

        return Targets(
            "tuple",
            prod(axes),
            prod(indices[:-1]),
            {"axis_size": 1, "axis_stride": 0, "size": size, "stride": stride},
            depth,
            places,
        )

    def _too_many_dimensions(self, x: Value, indices: Value) -> str | None:
        return too_long_tuples(indices)
