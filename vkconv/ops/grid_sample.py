"""GridSample: a tensor sampled at positions that another tensor gives."""

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
from vkconv.ops.sampling import Tap, interpolate, zero_outside
from vkconv.ops.shapes import ceil_div

#: positions of that size and more are taken for infinite: floats there have no neighbours
FAR = 2.0**24
#: codes of grid_sample.comp
MODES = {"nearest": 0, "linear": 1, "cubic": 2}
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}
OLD_NAMES = {"bilinear": "linear", "bicubic": "cubic"}
#: channel blocks for which one invocation computes its position once
BLOCKS_TOGETHER = 8


@operator("GridSample", since=(16, 20, 22))
class GridSample(Operator):
    """y[n, c, p] = x[n, c] at grid[n, p], for x (N, C, *spatial) and grid (N, *out, axes).

    Coordinates in [-1, 1], those of the last axis first, span the map from edge to edge, or with
    ``align_corners`` from the first pixel's centre to the last's. Positions outside are zero, those
    of the nearest pixel inside (border), or reflected at the ends of that span; for cubic the four
    taps of an axis each are, as in torch and onnxruntime. A coordinate that is NaN is outside.
    """

    mode: str | None = None
    padding_mode: str = "zeros"
    align_corners: int = 0
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})
    device_dtypes: ClassVar[frozenset[str]] = FLOATS

    def infer(self, x: Value, grid: Value) -> TensorType:
        axes = len(x.dims) - 2
        if axes < 1 or len(grid.dims) != axes + 2 or grid.dims[-1] != axes:
            raise InvalidModelError(f"a grid of shape {grid.dims} does not fit {x.dims}")
        if grid.dims[0] != x.dims[0]:
            raise InvalidModelError(f"{grid.dims[0]} grids for {x.dims[0]} tensors")
        if 0 in x.dims[2:] and 0 not in grid.dims:
            raise InvalidModelError(f"there is nothing to sample in {x.dims}")
        if self._mode() not in MODES or self.padding_mode not in PADDINGS:
            raise InvalidModelError(f"mode '{self.mode}' or padding_mode '{self.padding_mode}'")
        return TensorType(x.dtype, (*x.dims[:2], *grid.dims[1:-1]))

    def reference(self, x: Array, grid: Array) -> Array:
        shape = (*x.shape[:2], *grid.shape[1:-1])
        if 0 in shape:
            return np.zeros(shape, x.dtype)
        work = np.float64 if x.dtype == np.float64 else np.float32
        places = grid.astype(work, copy=False).reshape(len(grid), -1, grid.shape[-1])
        axes = [
            self._taps(places[..., -1 - axis], size, work) for axis, size in enumerate(x.shape[2:])
        ]
        source = x if x.dtype.kind in "iub" else x.astype(work, copy=False)
        return np.asarray(interpolate(source, axes).reshape(shape).astype(x.dtype))

    def _mode(self) -> str:
        mode = self.mode or "linear"
        return OLD_NAMES.get(mode, mode)

    def _taps(self, coordinate: Array, size: int, work: type[np.floating]) -> list[Tap]:
        """The taps of one axis of ``size`` for normalised coordinates (N, P)."""
        mode, one, half = self._mode(), work(1), work(0.5)
        if self.align_corners:
            place = (coordinate + one) * half * work(size - 1)
        else:
            place = ((coordinate + one) * work(size) - one) * half
        beyond = 0 if self.padding_mode == "reflection" else np.where(place > 0, size + 4, -4)
        with np.errstate(invalid="ignore"):
            place = np.where(np.abs(place) < FAR, place, beyond).astype(work)
        if mode != "cubic" and self.padding_mode != "zeros":
            place = self._inside(place, size)
        if mode == "nearest":
            return [zero_outside(np.rint(place), np.ones_like(place), size)]
        first = np.floor(place)
        t = place - first
        if mode == "linear":
            weights = [one - t, t]
        else:
            weights = [_cubic_far(t + 1), _cubic_near(t), _cubic_near(1 - t), _cubic_far(2 - t)]
            first = first - 1
        taps = []
        for k, weight in enumerate(weights):
            at = first + work(k)
            if mode == "cubic" and self.padding_mode != "zeros":
                at = self._inside(at, size)
            taps.append(zero_outside(at, weight, size))
        return taps

    def _inside(self, place: Array, size: int) -> Array:
        """Positions inside for those outside: the nearest, or after reflection at the ends."""
        if self.padding_mode == "reflection":
            low, span = (0.0, size - 1) if self.align_corners else (-0.5, size)
            distance = np.abs(place - low)
            flips = np.floor(distance / max(span, 0.5))
            rest = distance - flips * span
            place = (low + np.where(flips % 2 > 0.5, span - rest, rest)).astype(place.dtype)
        return np.asarray(np.clip(place, 0, size - 1))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        axes = len(outputs[0].dims) - 2
        return None if axes <= 3 else f"GridSample over {axes} spatial axes has no kernel"

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, grid), y = inputs, outputs[0].on_device
        assert x is not None and grid is not None
        n, blocks, h, w = c4_dims(y.shape)
        if n * blocks * h * w == 0:
            return []
        axes = len(x.shape) - 2
        together = min(blocks, BLOCKS_TOGETHER)
        where = spread(ctx.caps, h * w, ceil_div(blocks, together), n)
        return [
            ctx.dispatch(
                "grid_sample",
                {"x": ctx.operand(x, "c4"), "grid": ctx.operand(grid, "linear"), "y": y},
                {
                    "batches": n,
                    "blocks": blocks,
                    "part": together,
                    "pixels": h * w,
                    "in_size": [1] * (3 - axes) + list(x.shape[2:]),
                },
                {
                    **where.spec,
                    "MODE": MODES[self._mode()],
                    "PADDING": PADDINGS[self.padding_mode],
                    "ALIGNED": int(bool(self.align_corners)),
                    "AXES": axes,
                },
                where.count,
            )
        ]


def _cubic_near(t: Array) -> Array:
    """R. Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15 with
    a = -0.75: the weight at distance t <= 1."""
    return (1.25 * t - 2.25) * t * t + 1


def _cubic_far(t: Array) -> Array:
    """The weight at distance 1 < t <= 2."""
    return ((-0.75 * t + 3.75) * t - 6) * t + 3
