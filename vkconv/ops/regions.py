"""Regions of a tensor (what Slice and Split take): as views where memory allows, else as copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ir import Layout, Value
from vkconv.ops.copying import Dim, c4_strides, channel_copy, collapse, row_major, strided_copy
from vkconv.ops.lowering import Lowering
from vkconv.ops.operator import FLOATS


@dataclass(frozen=True)
class Region:
    """Per axis of a tensor: first index, number of indices, and the step between them."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """For numpy. A region that runs down to index 0 has no end."""
        result = []
        for start, size, step in zip(self.starts, self.sizes, self.steps, strict=True):
            end = start + size * step
            result.append(slice(start, end if end >= 0 else None, step) if size else slice(0))
        return tuple(result)

    def channels_step(self) -> int:
        return self.steps[1] if self.sizes[1] > 1 else 1

    def keeps_spatial(self, shape: Sequence[int]) -> bool:
        """Whether the region has every pixel of the maps, in order."""
        return self.sizes[2:] == tuple(shape[2:]) and all(
            step == 1 or size <= 1
            for step, size in zip(self.steps[2:], self.sizes[2:], strict=True)
        )

    def whole_blocks(self, channels: int) -> bool:
        """Whether the channels are whole vec4s of C4 (the last one padded with zeros)."""
        end = self.starts[1] + self.sizes[1]
        return (
            self.channels_step() == 1
            and self.starts[1] % 4 == 0
            and (end % 4 == 0 or end == channels)
        )


def region_layout(x: Value | None, regions: Sequence[Region]) -> Layout:
    """C4 when x has it and every region has a kernel there."""
    if x is None or x.layout != "c4" or x.dtype not in FLOATS:
        return "linear"
    for region in regions:
        if region.channels_step() != 1:
            return "linear"
        plain = region.keeps_spatial(x.dims) and (region.steps[0] == 1 or region.sizes[0] <= 1)
        if not plain and not region.whole_blocks(x.dims[1]):
            return "linear"
    return "c4"


def region_view(x: View, region: Region) -> View | None:
    """The region as a view of x, when it lies dense (or as a channel slice) in x's memory."""
    if x.layout == "c4":
        if not region.whole_blocks(x.shape[1]) or not region.keeps_spatial(x.shape):
            return None
        if region.sizes[0] > 1 and region.steps[0] < 1:
            return None
        _, _, h, w = c4_dims(x.shape)
        offset = x.offset + region.starts[0] * x.batch_stride + region.starts[1] * h * w
        stride = x.batch_stride * (region.steps[0] if region.sizes[0] > 1 else 1)
        return View(x.storage, region.sizes, x.dtype, "c4", offset, stride)
    strides = row_major(x.shape)
    dims = [
        Dim(size, step * stride, dense)
        for size, step, stride, dense in zip(
            region.sizes, region.steps, strides, row_major(region.sizes), strict=True
        )
    ]
    inner = collapse(dims)
    if 0 not in region.sizes and (len(inner) > 1 or inner[0].x != 1):
        return None
    start = sum(a * b for a, b in zip(region.starts, strides, strict=True))
    if 0 in region.sizes:
        start = 0
    return View(x.storage, region.sizes, x.dtype, "linear", x.offset + start)


def copy_region(ctx: Lowering, x: View, y: View, region: Region) -> list[Dispatch]:
    """y = the region of x; both have the layout that ``region_layout`` chose."""
    if 0 in region.sizes:
        return []
    if x.layout == "c4" and not region.whole_blocks(x.shape[1]):
        batches = View(
            x.storage,
            (region.sizes[0], *x.shape[1:]),
            x.dtype,
            "c4",
            x.offset + region.starts[0] * x.batch_stride,
            x.batch_stride,
        )
        return channel_copy(ctx, batches, y, region.starts[1], 0, region.sizes[1], merge=False)
    if x.layout == "c4":
        strides, targets = c4_strides(x), c4_strides(y)
        sizes = (region.sizes[0], c4_dims(region.sizes)[1], *region.sizes[2:])
        starts = (region.starts[0], region.starts[1] // 4, *region.starts[2:])
    else:
        strides, targets = row_major(x.shape), row_major(y.shape)
        sizes, starts = region.sizes, region.starts
    dims = [
        Dim(size, step * stride, target)
        for size, step, stride, target in zip(sizes, region.steps, strides, targets, strict=True)
    ]
    start = sum(a * b for a, b in zip(starts, strides, strict=True))
    return strided_copy(ctx, x, y, dims, start, 0, vec4=x.layout == "c4")
