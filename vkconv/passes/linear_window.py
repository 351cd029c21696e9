"""Which elements around a position a map reads, per spatial axis: taps, strides and sizes.

Position p of the result reads x[p s + t] for the taps t = first, first + step, ..., last, and there
are floor((size - 1 + rest) / s) + 1 positions. So padding at the beginning is -first, at the end
rest + last; both may be negative, which crops. A transposed map writes y[q s + t] for each q, and
has s (size - 1) + 1 + rest positions. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod


@dataclass(frozen=True)
class Taps:
    """One axis."""

    first: int = 0
    count: int = 1
    step: int = 1
    stride: int = 1
    rest: int = 0

    @property
    def last(self) -> int:
        return self.first + (self.count - 1) * self.step

    @property
    def pads(self) -> tuple[int, int]:
        return -self.first, self.rest + self.last


@dataclass(frozen=True)
class Window:
    """All axes. ``opaque``: the padding is not known as numbers (it names the rule by which it is
    found); such a window combines with products per position only."""

    axes: tuple[Taps, ...]
    transposed: bool = False
    opaque: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(a.count for a in self.axes)

    @property
    def density(self) -> float:
        """Positions of the result for each of the input."""
        steps = prod(a.stride for a in self.axes)
        return float(steps) if self.transposed else 1 / steps

    @property
    def is_unit(self) -> bool:
        return not self.opaque and all(a == Taps() for a in self.axes)

    @property
    def reads_outside(self) -> bool:
        return any(pad > 0 for a in self.axes for pad in a.pads)

    def cannot_follow(self, inner: Window) -> str | None:
        """Why a window that is more than a product per position cannot come behind ``inner``."""
        if self.transposed or (inner.transposed and not inner.is_unit):
            return "a transposed convolution combines with products per position only"
        if self.opaque or (inner.opaque and not inner.is_unit):
            return "its padding depends on the size of its input"
        return None

    def border_of(self, inner: Window) -> str | None:
        """Why zeros beyond the border of ``inner``'s result are not what ``inner`` gives there."""
        for outer, axis in zip(self.axes, inner.axes, strict=True):
            begin, end = outer.pads
            before = begin > 0 and axis.last >= axis.stride
            behind = end > 0 and axis.rest + axis.first < 0
            if before or behind:
                return "pads with zeros where the layer before it would still see its input"
        return None

    def after(self, inner: Window) -> Window:
        """The window of the composition: taps u s + t."""
        axes = []
        for outer, axis in zip(self.axes, inner.axes, strict=True):
            first = outer.first * axis.stride + axis.first
            last = outer.last * axis.stride + axis.last
            steps = [outer.step * axis.stride] * (outer.count > 1) + [axis.step] * (axis.count > 1)
            step = gcd(*steps) or 1
            axes.append(
                Taps(
                    first,
                    (last - first) // step + 1,
                    step,
                    outer.stride * axis.stride,
                    axis.rest + outer.rest * axis.stride,
                )
            )
        return Window(tuple(axes))

    def joined(self, other: Window, sizes_agree: bool) -> Window:
        """The taps of both. Raises ValueError, with the reason, where the results differ in size or
        stride."""
        if self == other:
            return self
        if self.opaque or other.opaque:
            raise ValueError("its padding depends on the size of its input")
        if self.transposed != other.transposed:
            raise ValueError("one branch is a transposed convolution")
        axes = []
        for a, b in zip(self.axes, other.axes, strict=True):
            if a.stride != b.stride:
                raise ValueError("the branches have different strides")
            if a.rest != b.rest and not sizes_agree:
                raise ValueError("the branches pad to sizes that differ for some inputs")
            first, last = min(a.first, b.first), max(a.last, b.last)
            steps = [t.step for t in (a, b) if t.count > 1]
            step = gcd(*steps, a.first - b.first) or 1
            wider = a if a.count >= b.count else b
            axes.append(replace(wider, first=first, count=(last - first) // step + 1, step=step))
        return Window(tuple(axes), self.transposed)

    def standard(self) -> Window:
        """As ONNX's Conv has it: padding is not negative, so taps reach at least to the border."""
        if self.opaque or self.transposed:
            return self
        axes = []
        for axis in self.axes:
            begin, end = axis.pads
            before = -(begin // axis.step) if begin < 0 else 0
            behind = -(end // axis.step) if end < 0 else 0
            axes.append(
                replace(
                    axis,
                    first=axis.first - before * axis.step,
                    count=axis.count + before + behind,
                )
            )
        return replace(self, axes=tuple(axes))

    def places(self, wider: Window) -> tuple[slice, ...]:
        """Where this window's taps lie among those of ``wider``, which has them all."""
        return tuple(
            _place(a.first, a.count, a.step, b) for a, b in zip(self.axes, wider.axes, strict=True)
        )

    def places_after(self, inner: Window, tap: Sequence[int], wider: Window) -> tuple[slice, ...]:
        """Where the taps of ``inner`` lie in the composition for one tap of this window."""
        return tuple(
            _place((u.first + i * u.step) * t.stride + t.first, t.count, t.step, w)
            for i, u, t, w in zip(tap, self.axes, inner.axes, wider.axes, strict=True)
        )


def unit_window(axes: int) -> Window:
    return Window((Taps(),) * axes)


def _place(first: int, count: int, step: int, wider: Taps) -> slice:
    start = (first - wider.first) // wider.step
    stride = max(step // wider.step, 1)
    return slice(start, start + (count - 1) * stride + 1, stride)
