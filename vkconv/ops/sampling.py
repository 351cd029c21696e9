"""Interpolation at computed positions by numpy: what DeformConv and GridSample have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from vkconv.ir import Array

#: one tap of an axis: indices inside it, and their weights, both (N, P); the weight is 0 where the
#: tap lies outside
Tap: TypeAlias = tuple[Array, Array]


def linear_taps(position: Array, size: int) -> list[Tap]:
    """The two neighbours of each position, with zeros beyond the axis. NaN is beyond it."""
    inside = (position > -1) & (position < size)
    place = np.where(inside, position, 0)
    first = np.floor(place)
    fraction = place - first
    return [
        zero_outside(first + k, np.where(inside, weight, 0), size)
        for k, weight in enumerate((1 - fraction, fraction))
    ]


def zero_outside(index: Array, weight: Array, size: int) -> Tap:
    """The tap with indices clamped to the axis, weighing 0 where they were not in it."""
    inside = (index >= 0) & (index < size)
    return np.clip(index, 0, size - 1).astype(np.int64), np.where(inside, weight, 0)


def interpolate(x: Array, axes: Sequence[Sequence[Tap]]) -> Array:
    """(N, C, P) from x (N, C, *spatial) and the taps of each spatial axis: the sum over all
    combinations of one tap per axis of the product of their weights, times x there."""
    n, channels = x.shape[:2]
    flat = x.reshape(n, channels, int(np.prod(x.shape[2:])))
    total: Any = 0
    for combination in product(*axes):
        index: Any = 0
        weight: Any = 1
        for (place, factor), size in zip(combination, x.shape[2:], strict=True):
            index = index * size + place
            weight = weight * factor
        picked = np.take_along_axis(flat, index[:, None, :], axis=2)
        # what weighs nothing was not read: it may be infinite
        total = total + np.where(weight[:, None, :] == 0, 0, picked) * weight[:, None, :]
    return np.asarray(total)
