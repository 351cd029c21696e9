"""Indices that a model gives: checked where they are constant, clamped where they are computed."""

from __future__ import annotations

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Value
from vkconv.ops.operator import INTEGERS


def require_indices(indices: Value, size: int, axis: int) -> None:
    """Raises InvalidModelError when ``indices`` are no integers, or cannot all lie in an axis of
    ``size``."""
    if indices.dtype not in INTEGERS:
        raise InvalidModelError(f"the indices are {indices.dtype}, not int32 or int64")
    if size == 0 and indices.known_type.size:
        raise InvalidModelError(f"axis {axis} is empty")
    if indices.array is not None:
        require_inside(indices.array, size, axis)


def require_inside(indices: Array, size: int, axis: int) -> None:
    """Raises InvalidModelError when a constant index lies outside an axis; negative ones count from
    its end."""
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise InvalidModelError(f"an index is outside [{-size}, {size - 1}] of axis {axis}")


def wrap(indices: Array, size: int) -> Array:
    """Indices from 0 on: negative ones count from the end; what lies outside is clamped, here as on
    the device, since no data may read or write out of bounds."""
    wide = indices.astype(np.int64, copy=False)
    if wide.size and wide.min() < 0:
        wide = np.where(wide < 0, wide + size, wide)
    return np.clip(wide, 0, max(size - 1, 0))
