"""Resize and Upsample: other sizes for some axes, by sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator, UnknownShapeError
from vkconv.ops.registry import operator
from vkconv.ops.resize_kernels import resize
from vkconv.ops.resize_tables import AxisTable, Sampling, axis_table
from vkconv.ops.shapes import normalise_axis

Shape = tuple[int, ...]

#: elements of an axis that is resized, and of the table that says how: planning makes it in a
#: second, and its positions are exact as 32-bit floats
LONGEST_TABLE = 1 << 22


class _Resizing(Operator):
    """What Resize and Upsample have in common."""

    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3})

    def target(self, shape: Shape, *rest: Array | None) -> tuple[Shape, Sequence[float]]:
        """The output's shape, and the scale of every axis."""
        raise NotImplementedError

    def sampling(self) -> Sampling:
        raise NotImplementedError

    def region(self, rank: int, *rest: Array | None) -> Sequence[tuple[float, float]]:
        """The part of every axis to sample, as fractions (for tf_crop_and_resize)."""
        return [(0.0, 1.0)] * rank

    def fill(self) -> float:
        """The result at positions outside (tf_crop_and_resize)."""
        return 0.0

    def tables(self, shape: Shape, *rest: Array | None) -> dict[int, AxisTable]:
        """The tables of those axes that do not stay as they are."""
        out, scales = self.target(shape, *rest)
        roi, sampling = self.region(len(shape), *rest), self.sampling()
        found: dict[int, AxisTable] = {}
        if 0 in shape or 0 in out:  # nothing to sample, however long the other axes are
            return found
        for axis, size in enumerate(shape):
            crops = sampling.coordinates == "tf_crop_and_resize"
            if scales[axis] == 1 and not crops:
                continue
            # (tf_half_pixel_for_nn would move an axis of scale 1 by half a pixel otherwise)
            table = axis_table(size, out[axis], scales[axis], roi[axis], sampling)
            if size != out[axis] or not table.is_identity:
                found[axis] = table
        return found

    def infer(self, x: Value, *rest: Value | None) -> TensorType:
        self.sampling().check()
        out, scales = self.target(x.dims, *_known(rest))
        if 0 not in x.dims and 0 not in out:
            _check_lengths(x.dims, out, scales)
        return TensorType(x.dtype, out)

    def reference(self, x: Array, *rest: Array | None) -> Array:
        shape, _ = self.target(x.shape, *rest)
        if 0 in shape:
            return np.zeros(shape, x.dtype)
        tables = self.tables(x.shape, *rest)
        nearest = self.sampling().mode == "nearest"
        y = x if nearest or x.dtype == np.float64 else x.astype(np.float32)
        outside = np.zeros((1,) * x.ndim, bool)
        for axis, table in tables.items():
            wide = [1] * x.ndim
            wide[axis] = shape[axis]
            outside = outside | table.outside.reshape(wide)
            if nearest:
                y = y.take(table.indices[:, 0], axis=axis)
                continue
            total = np.zeros((*y.shape[:axis], shape[axis], *y.shape[axis + 1 :]), y.dtype)
            for index, weight in zip(table.indices.T, table.weights.T, strict=True):
                total += y.take(index, axis=axis) * weight.reshape(wide)
            y = total
        if outside.any():
            y = np.where(outside, np.asarray(self.fill(), y.dtype), y)
        if x.dtype.kind in "iu" and y.dtype.kind == "f":
            limits = np.iinfo(x.dtype)
            y = np.clip(np.rint(y), limits.min, limits.max)
        return np.array(y.astype(x.dtype))

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        x, *rest = inputs
        assert x is not None
        fits = 3 <= len(x.dims) <= 5 and x.dtype in FLOATS
        spatial = all(axis >= 2 for axis in self.tables(x.dims, *_known(rest)))
        return "c4" if fits and spatial else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, *rest = inputs
        y = outputs[0].on_device
        assert x is not None
        tables = self.tables(x.shape, *[None if t is None else t.array for t in rest])
        return resize(ctx, ctx.operand(x, y.layout), y, tables, self.fill())


def _check_lengths(shape: Shape, out: Shape, scales: Sequence[float]) -> None:
    """Raises InvalidModelError where the table of an axis would be beyond LONGEST_TABLE."""
    for axis, (size, wanted, scale) in enumerate(zip(shape, out, scales, strict=True)):
        if scale != 1 and max(size, wanted, wanted / min(scale, 1.0)) > LONGEST_TABLE:
            raise InvalidModelError(
                f"{size} elements of axis {axis} are resized to {wanted}; {LONGEST_TABLE} are the "
                "most; use a smaller size"
            )


@operator("Resize", since=(10, 11, 13, 18, 19))
class Resize(_Resizing):
    """y = x sampled at other positions of ``axes`` (all by default), separably: see resize_tables.

    Inputs X, scales (version 10) or X, roi, scales, sizes. Either scales, then
    out = floor(in * scale), or sizes, then scale = out / in.
    """

    mode: str = "nearest"
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: int = 0
    extrapolation_value: float = 0.0
    antialias: int = 0
    axes: tuple[int, ...] | None = None
    keep_aspect_ratio_policy: str = "stretch"

    def fill(self) -> float:
        return self.extrapolation_value

    def sampling(self) -> Sampling:
        if self.version == 10:
            return Sampling(_mode(self.mode), "asymmetric", "simple")
        return Sampling(
            self.mode,
            self.coordinate_transformation_mode,
            self.nearest_mode,
            self.cubic_coeff_a,
            bool(self.exclude_outside),
            bool(self.antialias),
        )

    def target(self, shape: Shape, *rest: Array | None) -> tuple[Shape, Sequence[float]]:
        scales, sizes = self._inputs(*rest)[1:]
        axes = self._axes(len(shape))
        out, factors = list(shape), [1.0] * len(shape)
        given = scales if sizes is None else sizes
        if given is None or (scales is not None and sizes is not None):
            raise InvalidModelError("exactly one of scales and sizes must be given")
        if len(given) != len(axes):
            raise InvalidModelError(f"{len(given)} scales or sizes for {len(axes)} axes")
        if sizes is None:
            for axis, scale in zip(axes, given, strict=True):
                out[axis], factors[axis] = _scaled(shape[axis], scale), float(scale)
            return tuple(out), factors
        wanted = [int(s) for s in sizes]
        if min(wanted, default=0) < 0:
            raise InvalidModelError(f"sizes {wanted} are negative")
        ratios = [w / max(shape[a], 1) for a, w in zip(axes, wanted, strict=True)]
        policy = self.keep_aspect_ratio_policy
        if policy in ("not_larger", "not_smaller") and self.version >= 18:
            ratio = (min if policy == "not_larger" else max)(ratios)
            wanted = [math.floor(ratio * shape[a] + 0.5) for a in axes]
            ratios = [ratio] * len(axes)
        elif policy != "stretch":
            raise InvalidModelError(f"keep_aspect_ratio_policy is '{policy}'")
        for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
            out[axis], factors[axis] = size, ratio
        return tuple(out), factors

    def region(self, rank: int, *rest: Array | None) -> Sequence[tuple[float, float]]:
        roi = self._inputs(*rest)[0]
        found = [(0.0, 1.0)] * rank
        if self.coordinate_transformation_mode != "tf_crop_and_resize":
            return found
        axes = self._axes(rank)
        if roi is None or len(roi) != 2 * len(axes):
            raise InvalidModelError("tf_crop_and_resize needs a roi of two numbers for each axis")
        for i, axis in enumerate(axes):
            found[axis] = (float(roi[i]), float(roi[len(axes) + i]))
        return found

    def _inputs(self, *rest: Array | None) -> tuple[Array | None, Array | None, Array | None]:
        """roi, scales and sizes; empty tensors stand for omitted ones."""
        given = [None if a is None or a.size == 0 else a.reshape(-1) for a in rest]
        if self.version == 10:
            given = [None, *given]
        given += [None] * (3 - len(given))
        return given[0], given[1], given[2]

    def _axes(self, rank: int) -> tuple[int, ...]:
        if self.axes is None or self.version < 18:
            return tuple(range(rank))
        return tuple(normalise_axis(a, rank) for a in self.axes)


@operator("Upsample", since=(1, 7, 9, 10))
class Upsample(_Resizing):
    """y[i] = x[i / scale], nearest or linear; scales are attributes before version 9."""

    mode: str = "nearest"
    scales: tuple[float, ...] | None = None
    height_scale: float | None = None
    width_scale: float | None = None

    def sampling(self) -> Sampling:
        return Sampling(_mode(self.mode), "asymmetric", "simple")

    def target(self, shape: Shape, *rest: Array | None) -> tuple[Shape, Sequence[float]]:
        scales: Sequence[float] | None = self.scales
        if self.height_scale is not None and self.width_scale is not None:
            scales = (*(1.0,) * (len(shape) - 2), self.height_scale, self.width_scale)
        if rest and rest[0] is not None:
            scales = [float(s) for s in rest[0].reshape(-1)]
        if scales is None or len(scales) != len(shape):
            raise InvalidModelError(f"scales {scales} do not fit an input of shape {shape}")
        return tuple(_scaled(d, s) for d, s in zip(shape, scales, strict=True)), scales


def _known(rest: Sequence[Value | None]) -> list[Array | None]:
    """The arrays of roi, scales and sizes. Raises UnknownShapeError when one is computed."""
    for value in rest:
        if value is not None and value.array is None and value.known_type.size:
            raise UnknownShapeError(f"the input '{value.name}' is computed by the model", value)
    return [None if v is None else v.array for v in rest]


def _scaled(size: int, scale: float) -> int:
    if not 0 < scale < 1e9:
        raise InvalidModelError(f"a scale is {scale}")
    # the product is rounded to float32 first, as the standard's shape inference does: 10 * 0.7 = 7
    return math.floor(np.float32(size) * np.float32(scale))


def _mode(mode: str) -> str:
    """Old versions also say "bilinear" for linear."""
    return "linear" if mode in ("bilinear", "linear") else mode
