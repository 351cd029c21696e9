"""Reshape, Flatten, Squeeze and Unsqueeze: the same elements in the same order, of another shape.

On the device they are views of a linear tensor; nothing is computed or moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from vkconv.dispatch import View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints, normalise_axis

Shape = tuple[int, ...]


class _Reshaping(Operator):
    """What the four have in common."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        return (View(x.storage, outputs[0].dims, x.dtype, "linear", x.offset),)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        # a constant that reaches this point has no memory to be viewed; folding leaves none
        return "its input is a constant" if x is None or x.is_constant else None


@operator("Reshape", since=(1, 5, 13, 14, 19, 21, 23, 24, 25))
class Reshape(_Reshaping):
    """y = x with the given shape; -1 stands for what is left, 0 for x's own dimension (unless
    ``allowzero``, where it is an empty one)."""

    shape: tuple[int, ...] | None = None
    allowzero: int = 0
    consumed_inputs: tuple[int, ...] | None = None

    def infer(self, data: Value, shape: Value | None = None) -> TensorType:
        wanted = known_ints(shape, "the input shape")
        return TensorType(data.dtype, self._target(data.dims, wanted))

    def reference(self, data: Array, shape: Array | None = None) -> Array:
        wanted = None if shape is None else tuple(map(int, shape))
        return data.reshape(self._target(data.shape, wanted)).copy()

    def _target(self, dims: Shape, wanted: Shape | None) -> Shape:
        wanted = self.shape if wanted is None else wanted
        if wanted is None:
            raise InvalidModelError("the shape is missing")
        target = list(wanted)
        if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
            raise InvalidModelError(f"{list(wanted)} is no shape to reshape to")
        for i, d in enumerate(wanted):
            if d == 0 and not self.allowzero:
                if i >= len(dims):
                    raise InvalidModelError(f"dimension {i} of {list(wanted)} is 0 without source")
                target[i] = dims[i]
        if -1 in target:
            known = math.prod(d for d in target if d != -1)
            if known == 0 or math.prod(dims) % known:
                raise InvalidModelError(f"{dims} does not reshape to {list(wanted)}")
            target[target.index(-1)] = math.prod(dims) // known
        if math.prod(target) != math.prod(dims):
            raise InvalidModelError(f"{dims} does not reshape to {list(wanted)}")
        return tuple(target)


@operator("Flatten", since=(1, 9, 11, 13, 21, 23, 24, 25))
class Flatten(_Reshaping):
    """y = x as a matrix: the dimensions before ``axis`` make rows, the others columns."""

    axis: int = 1

    def infer(self, x: Value) -> TensorType:
        return TensorType(x.dtype, self._target(x.dims))

    def reference(self, x: Array) -> Array:
        return x.reshape(self._target(x.shape)).copy()

    def _target(self, dims: Shape) -> Shape:
        rank = len(dims)
        if not -rank <= self.axis <= rank:
            raise InvalidModelError(f"axis {self.axis} is outside [{-rank}, {rank}]")
        axis = self.axis + rank if self.axis < 0 else self.axis
        return math.prod(dims[:axis]), math.prod(dims[axis:])


@operator("Squeeze", since=(1, 11, 13, 21, 23, 24, 25))
class Squeeze(_Reshaping):
    """y = x without the dimensions ``axes``, each of size 1; without all of size 1 by default.

    ``axes`` is an attribute before version 13, an input since.
    """

    axes: tuple[int, ...] | None = None

    def infer(self, data: Value, axes: Value | None = None) -> TensorType:
        return TensorType(data.dtype, self._target(data.dims, known_ints(axes, "the input axes")))

    def reference(self, data: Array, axes: Array | None = None) -> Array:
        given = None if axes is None else tuple(map(int, axes))
        return data.reshape(self._target(data.shape, given)).copy()

    def _target(self, dims: Shape, given: Shape | None) -> Shape:
        axes = self.axes if given is None else given
        if axes is None:
            return tuple(d for d in dims if d != 1)
        gone = {normalise_axis(a, len(dims)) for a in axes}
        if any(dims[a] != 1 for a in gone):
            raise InvalidModelError(f"axes {list(axes)} of {dims} are not all of size 1")
        return tuple(d for i, d in enumerate(dims) if i not in gone)


@operator("Unsqueeze", since=(1, 11, 13, 21, 23, 24, 25))
class Unsqueeze(_Reshaping):
    """y = x with dimensions of size 1 inserted, which are ``axes`` of y.

    ``axes`` is an attribute before version 13, an input since.
    """

    axes: tuple[int, ...] | None = None

    def infer(self, data: Value, axes: Value | None = None) -> TensorType:
        return TensorType(data.dtype, self._target(data.dims, known_ints(axes, "the input axes")))

    def reference(self, data: Array, axes: Array | None = None) -> Array:
        given = None if axes is None else tuple(map(int, axes.reshape(-1)))
        return data.reshape(self._target(data.shape, given)).copy()

    def _target(self, dims: Shape, given: Shape | None) -> Shape:
        axes = self.axes if given is None else given
        if axes is None:
            raise InvalidModelError("axes are missing")
        rank = len(dims) + len(axes)
        new = {normalise_axis(a, rank) for a in axes}
        if len(new) != len(axes):
            raise InvalidModelError(f"axes {list(axes)} name a dimension twice")
        rest = iter(dims)
        return tuple(1 if i in new else next(rest) for i in range(rank))
