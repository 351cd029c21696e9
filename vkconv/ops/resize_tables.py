"""Where resizing samples: for one axis, the taps (index and weight) of every output position.

The coordinate formulas are those of the standard (operator Resize, attribute
``coordinate_transformation_mode``). They are evaluated in float32 and in the order in which
onnxruntime does it: nearest-neighbour results then agree at exact ties, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Array

COORDINATE_MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
#: "simple" is what Upsample, and Resize in version 10, do: ceil when shrinking, else floor
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
MODES = ("nearest", "linear", "cubic")


@dataclass(frozen=True)
class Sampling:
    """How to sample, the same for all axes."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False

    def check(self) -> None:
        """Raises InvalidModelError for words the standard does not have."""
        for word, known in (
            (self.mode, MODES),
            (self.coordinates, COORDINATE_MODES),
            (self.nearest, NEAREST_MODES),
        ):
            if word not in known:
                raise InvalidModelError(f"'{word}' is not one of {', '.join(known)}")


@dataclass(frozen=True)
class AxisTable:
    """(out, taps) indices and float32 weights; ``outside`` marks positions to extrapolate."""

    indices: Array
    weights: Array
    outside: Array

    @property
    def is_identity(self) -> bool:
        """Whether the axis stays as it is (given that it keeps its size)."""
        heaviest = self.indices[np.arange(len(self.indices)), self.weights.argmax(axis=1)]
        exact = np.all((self.weights == 0) | (self.weights == 1))
        same = np.array_equal(heaviest, np.arange(len(heaviest)))
        return bool(exact and same and not self.outside.any())

    def whole_factor(self, size: int) -> int | None:
        """f when every position i reads i // f alone, and the axis grows from ``size`` f-fold."""
        count = len(self.indices)
        if self.indices.shape[1] != 1 or self.outside.any() or size == 0 or count % size:
            return None
        factor = count // size
        plain = np.array_equal(self.indices[:, 0], np.arange(count) // max(factor, 1))
        return factor if plain and factor else None


def axis_table(
    size: int, out: int, scale: float, roi: tuple[float, float], sampling: Sampling
) -> AxisTable:
    """The table of an axis of ``size`` elements resized to ``out``."""
    at = _coordinates(size, out, np.float32(scale), roi, sampling.coordinates)
    outside = np.zeros(out, bool)
    if sampling.coordinates == "tf_crop_and_resize":
        outside = (at < 0) | (at > size - 1)
    if sampling.mode == "nearest":
        indices = np.clip(_nearest(at, scale, sampling.nearest), 0, size - 1)[:, None]
        return AxisTable(indices, np.ones((out, 1), np.float32), outside)
    place = at.astype(np.float64)
    shrink = min(scale, 1.0) if sampling.antialias else 1.0
    support = (1 if sampling.mode == "linear" else 2) / shrink
    if sampling.mode == "linear" and not sampling.antialias:
        place = np.clip(place, 0, size - 1)
    first = np.floor(place - support).astype(np.int64) + 1
    taps = int(np.ceil(2 * support))
    indices = first[:, None] + np.arange(taps)
    distance = np.abs(indices - place[:, None]) * shrink
    weights = _triangle(distance) if sampling.mode == "linear" else _cubic(distance, sampling)
    if sampling.exclude_outside:
        weights = np.where((indices < 0) | (indices >= size), 0, weights)
    if sampling.exclude_outside or sampling.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return AxisTable(np.clip(indices, 0, size - 1), weights.astype(np.float32), outside)


def _coordinates(
    size: int, out: int, scale: np.float32, roi: tuple[float, float], mode: str
) -> Array:
    """The position in the input, as float32, of every output position."""
    one, half = np.float32(1), np.float32(0.5)
    x = np.arange(out, dtype=np.float32)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + half) / scale
    if mode == "align_corners":
        return x * np.float32(size - 1) / np.float32(max(out - 1, 1))
    if mode == "tf_crop_and_resize":
        start, end = np.float32(roi[0]), np.float32(roi[1])
        last = np.float32(size - 1)
        if out == 1:
            return np.full(1, half * (start + end) * last, np.float32)
        steps: Array = start * last + x * (end - start) * last / np.float32(out - 1)
        return steps
    if mode == "pytorch_half_pixel" and out == 1:
        return x * 0
    offset = np.float32(0)
    if mode == "half_pixel_symmetric":
        adjustment = np.float32(out) / (scale * np.float32(size))
        offset = np.float32(size) / np.float32(2) * (one - adjustment)
    at: Array = offset + (x + half) / scale - half
    return at


def _nearest(at: Array, scale: float, mode: str) -> Array:
    if mode == "floor" or (mode == "simple" and scale >= 1):
        picked = np.floor(at)
    elif mode in ("ceil", "simple"):
        picked = np.ceil(at)
    elif mode == "round_prefer_ceil":
        picked = np.floor(at + np.float32(0.5))
    else:
        picked = np.ceil(at - np.float32(0.5))
    return picked.astype(np.int64)


def _triangle(distance: Array) -> Array:
    return np.asarray(np.maximum(1 - distance, 0))


def _cubic(distance: Array, sampling: Sampling) -> Array:
    """R. Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15."""
    a, t = sampling.cubic_a, distance
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t < 1, near, np.where(t < 2, far, 0))
