"""Slice: every step-th index of some axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.regions import Region, copy_region, region_layout, region_view
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints, normalise_axis


@operator("Slice", since=(1, 10, 11, 13))
class Slice(Operator):
    """y = x[starts[i] : ends[i] : steps[i] on axis axes[i]], with Python's meaning of negative and
    overlong bounds. Attributes in version 1, inputs from version 10 on."""

    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3, 4})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3, 4})

    def infer(
        self,
        data: Value,
        starts: Value | None = None,
        ends: Value | None = None,
        axes: Value | None = None,
        steps: Value | None = None,
    ) -> TensorType:
        region = self._region(
            data.dims,
            known_ints(starts, "the input starts"),
            known_ints(ends, "the input ends"),
            known_ints(axes, "the input axes"),
            known_ints(steps, "the input steps"),
        )
        return TensorType(data.dtype, region.sizes)

    def reference(
        self,
        data: Array,
        starts: Array | None = None,
        ends: Array | None = None,
        axes: Array | None = None,
        steps: Array | None = None,
    ) -> Array:
        given = [None if a is None else tuple(map(int, a)) for a in (starts, ends, axes, steps)]
        return np.array(data[self._region(data.shape, *given).slices])

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return region_layout(inputs[0], [self.region(inputs)])

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        node = outputs[0].producer
        if node is None:
            return None
        found = region_view(x, self.region(node.inputs))
        return None if found is None else (found,)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        region = self.region([None if t is None else t.value for t in inputs])
        return copy_region(ctx, ctx.operand(x, y.layout), y, region)

    def region(self, inputs: Sequence[Value | None]) -> Region:
        """What the node takes of its first input."""
        data, *rest = inputs
        assert data is not None
        given = [known_ints(v, "an input of Slice") for v in rest]
        return self._region(data.dims, *given, *[None] * (4 - len(given)))

    def _region(
        self,
        shape: tuple[int, ...],
        starts: tuple[int, ...] | None,
        ends: tuple[int, ...] | None,
        axes: tuple[int, ...] | None,
        steps: tuple[int, ...] | None,
    ) -> Region:
        starts = self.starts if starts is None else starts
        ends = self.ends if ends is None else ends
        axes = self.axes if axes is None else axes
        if starts is None or ends is None:
            raise InvalidModelError("starts or ends is missing")
        axes = tuple(range(len(starts))) if axes is None else axes
        steps = (1,) * len(starts) if steps is None else steps
        if not len(starts) == len(ends) == len(axes) == len(steps):
            raise InvalidModelError(
                f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps "
                "do not belong together"
            )
        first, count, step_of = [0] * len(shape), list(shape), [1] * len(shape)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            if step == 0:
                raise InvalidModelError("a step is 0")
            where = normalise_axis(axis, len(shape))
            indices = range(*slice(start, end, step).indices(shape[where]))
            first[where], count[where], step_of[where] = indices.start, len(indices), step
        return Region(tuple(first), tuple(count), tuple(step_of))
