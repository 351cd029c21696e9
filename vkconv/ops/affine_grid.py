"""AffineGrid: the positions at which an affine map of the image samples it, for GridSample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints


@operator("AffineGrid", since=(20,))
class AffineGrid(Operator):
    """y[n, p] = theta[n] (position of p, 1), for theta (N, axes, axes + 1) and size (N, C, *out).

    y is (N, *out, axes). Positions span [-1, 1], those of the last axis first, from edge to edge,
    or with ``align_corners`` from the first pixel's centre to the last's (a single one is at 0).
    """

    align_corners: int = 0
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})
    device_dtypes: ClassVar[frozenset[str]] = FLOATS

    def infer(self, theta: Value, size: Value) -> TensorType:
        return TensorType(theta.dtype, self._shape(theta.dims, known_ints(size, "the input size")))

    def _shape(self, theta: tuple[int, ...], size: tuple[int, ...] | None) -> tuple[int, ...]:
        axes = theta[1] if len(theta) == 3 else 0
        if axes not in (2, 3) or theta[2] != axes + 1:
            raise InvalidModelError(f"theta of shape {theta} is no affine map of 2 or 3 axes")
        if size is None or len(size) != axes + 2 or size[0] != theta[0] or min(size) < 0:
            raise InvalidModelError(f"size {size} does not fit theta of shape {theta}")
        return (size[0], *size[2:], axes)

    def reference(self, theta: Array, size: Array) -> Array:
        shape = self._shape(theta.shape, tuple(map(int, size)))
        work = np.float64 if theta.dtype == np.float64 else np.float32
        axes = [self._positions(count, work) for count in shape[1:-1]]
        places = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)
        matrix: Array = theta.astype(work, copy=False)
        y = places.reshape(1, -1, shape[-1]) @ np.swapaxes(matrix[:, :, :-1], 1, 2)
        return (y + matrix[:, None, :, -1]).reshape(shape).astype(theta.dtype)

    def _positions(self, count: int, work: type[np.floating]) -> Array:
        steps: Array = 2 * np.arange(count, dtype=work)
        if not self.align_corners:
            return np.asarray((steps + work(1 - count)) / work(max(count, 1)))
        return np.asarray((steps - work(count - 1)) / work(max(count - 1, 1)))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        theta, y = inputs[0], outputs[0].on_device
        assert theta is not None
        if y.span == 0:
            return []
        n, *size, axes = y.shape
        pixels = math.prod(size)
        where = spread(ctx.caps, pixels, n)
        return [
            ctx.dispatch(
                "affine_grid",
                {"theta": ctx.operand(theta, "linear"), "y": y},
                {"batches": n, "size": [1] * (3 - axes) + size},
                {
                    **where.spec,
                    "AXES": axes,
                    "ALIGNED": int(bool(self.align_corners)),
                },
                where.count,
            )
        ]
