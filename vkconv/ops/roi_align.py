"""RoiAlign and MaxRoiPool: regions of feature maps, of any size, brought to one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div

#: a bin gets no more points per axis than a region of this many times the map's size would give
#: it: regions are data, and must not be able to stop a device
LARGEST_REGION = 4


#: samples along an axis of an output element: models have 0 to 4, and a file may ask for any number
MOST_SAMPLES = 1024


@operator("RoiAlign", since=(10, 16, 22))
class RoiAlign(Operator):
    """y[r, c, i, j] = mean or maximum of bilinear samples of x[batch_indices[r], c] in bin (i, j).

    x (N, C, H, W), rois (R, 4) as x1, y1, x2, y2, scaled by ``spatial_scale``; y (R, C,
    output_height, output_width). With half_pixel, regions are moved by -0.5; version 10 does not
    know it, and like output_half_pixel makes regions at least 1 wide. ``sampling_ratio`` 0 takes
    ceil(extent / bins) points. K. He et al., "Mask R-CNN", 2017, section 3.
    """

    coordinate_transformation_mode: str = "half_pixel"
    mode: str = "avg"
    output_height: int = 1
    output_width: int = 1
    sampling_ratio: int = 0
    spatial_scale: float = 1.0
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    device_dtypes: ClassVar[frozenset[str]] = FLOATS

    @property
    def is_half_pixel(self) -> bool:
        return self.version >= 16 and self.coordinate_transformation_mode == "half_pixel"

    def infer(self, x: Value, rois: Value, batch_indices: Value) -> TensorType:
        count = rois.dims[0] if rois.dims else 0
        if len(x.dims) != 4 or rois.dims != (count, 4) or batch_indices.dims != (count,):
            raise InvalidModelError(
                f"{x.dims}, rois {rois.dims} and batch_indices {batch_indices.dims} do not fit"
            )
        if self.mode not in ("avg", "max") or self.coordinate_transformation_mode not in (
            "half_pixel",
            "output_half_pixel",
        ):
            raise InvalidModelError(
                f"mode '{self.mode}' or coordinate_transformation_mode "
                f"'{self.coordinate_transformation_mode}' is not known"
            )
        if min(self.output_height, self.output_width) < 1 or self.sampling_ratio < 0:
            raise InvalidModelError("output_height, output_width or sampling_ratio is too small")
        if self.sampling_ratio > MOST_SAMPLES:
            raise InvalidModelError(
                f"sampling_ratio {self.sampling_ratio} is more than {MOST_SAMPLES}"
            )
        if count and 0 in x.dims:
            raise InvalidModelError(f"there is nothing to sample in {x.dims}")
        return TensorType(x.dtype, (count, x.dims[1], self.output_height, self.output_width))

    def reference(self, x: Array, rois: Array, batch_indices: Array) -> Array:
        bins = (self.output_height, self.output_width)
        work = np.float64 if x.dtype == np.float64 else np.float32
        y = np.zeros((len(rois), x.shape[1], *bins), work)
        shift = work(0.5 if self.is_half_pixel else 0)
        for r, (region, index) in enumerate(zip(rois.astype(work), batch_indices, strict=True)):
            corners = region * work(self.spatial_scale) - shift
            source = x[int(np.clip(index, 0, len(x) - 1))].astype(work, copy=False)
            # of each axis: neighbours (bins, points) and their weights
            (low_y, high_y, weight_y), (low_x, high_x, weight_x) = (
                self._points(corners[first], corners[first + 2], bins[1 - first], size)
                for first, size in ((1, x.shape[2]), (0, x.shape[3]))
            )
            if low_y.shape[1] * low_x.shape[1] == 0:
                continue
            parts = [
                source[:, rows[:, None, :, None], columns[None, :, None, :]]
                * (rows_weight[:, None, :, None] * columns_weight[None, :, None, :])
                for rows, rows_weight in ((low_y, weight_y[0]), (high_y, weight_y[1]))
                for columns, columns_weight in ((low_x, weight_x[0]), (high_x, weight_x[1]))
            ]
            if self.mode == "max":
                y[r] = np.maximum.reduce(parts).max(axis=(3, 4))
            else:
                y[r] = sum(parts).mean(axis=(3, 4))
        return np.asarray(y.astype(x.dtype))

    def _points(
        self, start: Array, end: Array, bins: int, size: int
    ) -> tuple[Array, Array, tuple[Array, Array]]:
        """An axis's points, (bins, points): both neighbours, and their weights."""
        work = start.dtype.type
        extent = end - start if self.is_half_pixel else np.maximum(end - start, work(1))
        step = extent / work(bins)
        count = self.sampling_ratio or min(
            max(int(np.nan_to_num(np.ceil(step), posinf=2**30, neginf=0)), 0), _limit(size, bins)
        )
        point = np.arange(count, dtype=work)[None, :]
        place = start + np.arange(bins, dtype=work)[:, None] * step
        place = place + (point + work(0.5)) * step / work(max(count, 1))
        inside = (place >= -1) & (place <= size)
        place = np.clip(np.nan_to_num(place), 0, size - 1)
        low = place.astype(np.int64)
        fraction = place - low
        weights = np.where(inside, 1 - fraction, 0), np.where(inside, fraction, 0)
        return low, np.minimum(low + 1, size - 1), weights

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, rois, batches), y = inputs, outputs[0].on_device
        assert x is not None and rois is not None and batches is not None
        count, blocks, height, width = c4_dims(y.shape)
        if count * blocks == 0:
            return []
        where = spread(ctx.caps, height * width, blocks, count)
        return [
            ctx.dispatch(
                "roi_align",
                {
                    "x": ctx.operand(x, "c4"),
                    "rois": ctx.operand(rois, "linear"),
                    "batches": ctx.operand(batches, "linear"),
                    "y": y,
                },
                {
                    "count": count,
                    "batch_size": x.shape[0],
                    "blocks": blocks,
                    "height": x.shape[2],
                    "width": x.shape[3],
                    "out_height": height,
                    "out_width": width,
                    "sampling_ratio": self.sampling_ratio,
                    "limit_y": _limit(x.shape[2], height),
                    "limit_x": _limit(x.shape[3], width),
                    "spatial_scale": self.spatial_scale,
                },
                {
                    **where.spec,
                    "MAXIMUM": int(self.mode == "max"),
                    "HALF_PIXEL": int(self.is_half_pixel),
                },
                where.count,
            )
        ]


def _limit(size: int, bins: int) -> int:
    return ceil_div(LARGEST_REGION * size, bins)


@operator("MaxRoiPool", since=(1, 22))
class MaxRoiPool(Operator):
    """y[r, c, i, j] = maximum of x over the pixels of bin (i, j) of region r; 0 if there are none.

    x (N, C, H, W); rois (R, 5) as batch index, x1, y1, x2, y2, scaled by ``spatial_scale``, rounded
    to pixels, both corners included; y (R, C, *pooled_shape). R. Girshick, "Fast R-CNN", 2015.
    """

    pooled_shape: tuple[int, ...]
    spatial_scale: float = 1.0
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})
    device_dtypes: ClassVar[frozenset[str]] = FLOATS

    def infer(self, x: Value, rois: Value) -> TensorType:
        if len(x.dims) != 4 or len(rois.dims) != 2 or rois.dims[1] != 5:
            raise InvalidModelError(f"{x.dims} and rois {rois.dims} do not fit")
        if len(self.pooled_shape) != 2 or min(self.pooled_shape) < 1:
            raise InvalidModelError(f"pooled_shape is {list(self.pooled_shape)}")
        if rois.dims[0] and 0 in x.dims:
            raise InvalidModelError(f"there is nothing to pool in {x.dims}")
        return TensorType(x.dtype, (rois.dims[0], x.dims[1], *self.pooled_shape))

    def reference(self, x: Array, rois: Array) -> Array:
        y = np.zeros((len(rois), x.shape[1], *self.pooled_shape), x.dtype)
        rows, columns = self.pooled_shape
        for r, region in enumerate(rois.astype(np.float32)):
            scaled = np.clip(np.nan_to_num(region * np.float32(self.spatial_scale)), -1e6, 1e6)
            x1, y1, x2, y2 = np.trunc(scaled[1:] + np.copysign(0.5, scaled[1:]))
            source = x[int(np.clip(np.nan_to_num(region[0]), 0, len(x) - 1))]
            for i in range(rows):
                low_y, high_y = _bounds(y1, y2, rows, i, x.shape[2])
                for j in range(columns):
                    low_x, high_x = _bounds(x1, x2, columns, j, x.shape[3])
                    if low_y < high_y and low_x < high_x:
                        y[r, :, i, j] = source[:, low_y:high_y, low_x:high_x].max(axis=(1, 2))
        return y

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, rois), y = inputs, outputs[0].on_device
        assert x is not None and rois is not None
        count, blocks, height, width = c4_dims(y.shape)
        if count * blocks == 0:
            return []
        where = spread(ctx.caps, height * width, blocks, count)
        return [
            ctx.dispatch(
                "max_roi_pool",
                {"x": ctx.operand(x, "c4"), "rois": ctx.operand(rois, "linear"), "y": y},
                {
                    "count": count,
                    "batch_size": x.shape[0],
                    "blocks": blocks,
                    "height": x.shape[2],
                    "width": x.shape[3],
                    "out_height": height,
                    "out_width": width,
                    "spatial_scale": self.spatial_scale,
                },
                where.spec,
                where.count,
            )
        ]


def _bounds(first: Array, last: Array, bins: int, bin_: int, size: int) -> tuple[int, int]:
    """The pixels of a bin of one axis."""
    extent = np.maximum(last - first + 1, np.float32(1)) / np.float32(bins)
    low = np.floor(np.float32(bin_) * extent) + first
    high = np.ceil(np.float32(bin_ + 1) * extent) + first
    return int(np.clip(low, 0, size)), int(np.clip(high, 0, size))
