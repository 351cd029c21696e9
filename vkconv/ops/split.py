"""Split: consecutive parts of one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator, Types
from vkconv.ops.regions import Region, copy_region, region_layout, region_view
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div, known_ints, normalise_axis


@operator("Split", since=(1, 2, 11, 13, 18))
class Split(Operator):
    """The parts of x along ``axis``: of the sizes in ``split`` (an attribute before version 13, an
    input since), else of equal size; from version 18 on the last of ``num_outputs`` may be smaller.
    """

    axis: int = 0
    split: tuple[int, ...] | None = None
    num_outputs: int | None = None
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1})

    def infer(self, x: Value, split: Value | None = None) -> Types:
        sizes = known_ints(split, "the input split")
        return tuple(TensorType(x.dtype, r.sizes) for r in self._regions(x.dims, sizes))

    def reference(self, x: Array, split: Array | None = None) -> tuple[Array, ...]:
        sizes = None if split is None else tuple(map(int, split))
        return tuple(np.array(x[r.slices]) for r in self._regions(x.shape, sizes))

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return region_layout(inputs[0], self.regions(inputs))

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        node = outputs[0].producer
        if node is None:
            return None
        views = [region_view(x, r) for r in self.regions(node.inputs)]
        found = tuple(v for v in views if v is not None)
        return found if len(found) == len(views) else None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x = inputs[0]
        assert x is not None
        source = ctx.operand(x, outputs[0].on_device.layout)
        regions = self.regions([None if t is None else t.value for t in inputs])
        return [
            dispatch
            for y, region in zip(outputs, regions, strict=True)
            for dispatch in copy_region(ctx, source, y.on_device, region)
        ]

    def regions(self, inputs: Sequence[Value | None]) -> list[Region]:
        """What each output takes of the node's first input."""
        x = inputs[0]
        assert x is not None
        sizes = known_ints(inputs[1], "the input split") if len(inputs) > 1 else None
        return self._regions(x.dims, sizes)

    def _regions(self, shape: tuple[int, ...], sizes: tuple[int, ...] | None) -> list[Region]:
        axis = normalise_axis(self.axis, len(shape))
        total = shape[axis]
        sizes = self.split if sizes is None else sizes
        if sizes is None:
            sizes = self._equal(total)
        if len(sizes) != self.output_count or sum(sizes) != total or min(sizes) < 0:
            raise InvalidModelError(
                f"split sizes {list(sizes)} do not cut axis {axis} of {shape} into "
                f"{self.output_count} outputs"
            )
        regions = []
        start = 0
        for size in sizes:
            starts = tuple(start if i == axis else 0 for i in range(len(shape)))
            extent = (*shape[:axis], size, *shape[axis + 1 :])
            regions.append(Region(starts, extent, (1,) * len(shape)))
            start += size
        return regions

    def _equal(self, total: int) -> tuple[int, ...]:
        count = self.num_outputs if self.num_outputs is not None else self.output_count
        if count < 1 or (total % count and self.version < 18):
            raise InvalidModelError(f"{total} elements do not split into {count} equal parts")
        part = ceil_div(total, count)
        return tuple(max(0, min(part, total - i * part)) for i in range(count))
