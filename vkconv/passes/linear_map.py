"""Affine maps that shift with their input: what convolutions, normalisations, pools and crops are.

    y[o, p] = b[o] + sum over i, t of W[o, i, t] x[g(o) + i, p s + t]          (a *map*)

with x zero outside its borders, p and t one index per spatial axis, t running over the window's
taps, s the strides and g(o) the first input channel of o's group. Transposed maps (ConvTranspose)
send x[q] to p = q s + t instead. Maps are closed under composition, sums and concatenation:

    V after W   has the kernel  sum over u + t = r of V[u] W[t],   and the bias c + sum_u V[u] b
    V beside W  has the kernel  V + W on the taps of both,         and the bias c + b

Kernels are (outputs, inputs / groups, taps...) for all kinds, in float64, and computed when they
are first asked for: whether to fuse is decided by sizes alone. Nothing here knows graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import gcd, prod
from typing import TypeAlias

import numpy as np

from vkconv.ir import Array
from vkconv.passes.linear_kernels import combined, regrouped
from vkconv.passes.linear_window import Window, unit_window

#: largest magnitudes of a kernel and of a bias
Bounds: TypeAlias = "tuple[float, float]"


class InexactError(Exception):
    """Two maps that do not combine exactly; the message says why."""


@dataclass(eq=False)
class LinearMap:
    """A map of ``inputs`` to ``outputs`` channels.

    ``weigh`` computes the kernel, ``shift`` the bias (None: none); ``bound`` says what the largest
    magnitudes in them are at most. ``outside``: what the map reads beyond the borders of its input
    where that is not zero, one number per channel (Pad).
    """

    inputs: int
    outputs: int
    groups: int
    window: Window
    weigh: Callable[[], Array]
    shift: Callable[[], Array] | None = None
    bound: Callable[[], Bounds] = lambda: (1.0, 0.0)
    outside: Array | None = None
    #: how many maps one behind the other it is computed from
    depth: int = 0

    @cached_property
    def kernel(self) -> Array:
        with np.errstate(all="ignore"):
            kernel = self.weigh()
        shape = (self.outputs, self.inputs // self.groups, *self.window.counts)
        assert kernel.shape == shape and kernel.dtype == np.float64
        return kernel

    @cached_property
    def bias(self) -> Array:
        with np.errstate(all="ignore"):
            return np.zeros(self.outputs) if self.shift is None else self.shift()

    @cached_property
    def bounds(self) -> Bounds:
        return self.bound()

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.inputs == self.outputs

    @property
    def size(self) -> int:
        """Elements of the kernel."""
        return self.outputs * (self.inputs // self.groups) * prod(self.window.counts)

    @property
    def work(self) -> float:
        """Multiplications for each position of the input."""
        return self.size * (1.0 if self.window.transposed else self.window.density)


def identity(channels: int, axes: int) -> LinearMap:
    return diagonal(np.ones(channels), None, axes)


def diagonal(factor: Array, offset: Array | None, axes: int) -> LinearMap:
    """y = factor x + offset for each channel, over ``axes`` spatial axes."""
    channels = factor.size
    shape = (channels, 1, *[1] * axes)
    shift = None if offset is None else lambda: offset
    return LinearMap(
        channels,
        channels,
        channels,
        unit_window(axes),
        lambda: factor.reshape(shape),
        shift,
        lambda: (largest(factor), largest(offset)),
    )


def largest(array: Array | None) -> float:
    """The largest magnitude; NaN where there is one."""
    if array is None or not array.size:
        return 0.0
    return max(abs(float(array.max())), abs(float(array.min())))


def moved(channels: int, window: Window, outside: Array | None = None) -> LinearMap:
    """The identity seen through another window of one tap: a crop, a pad, every s-th element."""
    shape = (channels, 1, *window.counts)
    return LinearMap(channels, channels, channels, window, lambda: np.ones(shape), outside=outside)


def compose(outer: LinearMap, inner: LinearMap, exact: bool = True) -> LinearMap:
    """``outer`` of ``inner``. Raises InexactError where a border comes between them; with ``exact``
    false the result is wrong there, and of use only for its sizes."""
    assert outer.inputs == inner.outputs
    if inner.window.is_unit and _gives_what_is_read(inner, outer):
        window = outer.window  # a product per position does not move anything
    elif outer.window.is_unit:
        window = inner.window
    else:
        reason = _border_between(outer, inner)
        if exact and reason is not None:
            raise InexactError(reason)
        window = outer.window.after(inner.window)
    groups = gcd(outer.groups, inner.groups)
    if outer.is_depthwise:
        groups = inner.groups
    elif inner.is_depthwise:
        groups = outer.groups

    def weigh() -> Array:
        return combined(outer, inner, groups, window)

    def shift() -> Array:
        taps = prod(outer.window.counts)
        sums = outer.kernel.reshape(outer.groups, outer.outputs // outer.groups, -1, taps).sum(3)
        given = inner.bias.reshape(outer.groups, -1, 1)
        return np.asarray(outer.bias + (sums @ given).reshape(-1))

    biased = outer.shift is not None or inner.shift is not None

    def bound() -> Bounds:
        terms = (outer.inputs // outer.groups) * prod(outer.window.counts) * outer.bounds[0]
        return terms * inner.bounds[0], outer.bounds[1] + terms * inner.bounds[1]

    return LinearMap(
        inner.inputs,
        outer.outputs,
        groups,
        window,
        weigh,
        shift if biased else None,
        bound,
        depth=1 + max(outer.depth, inner.depth),
    )


def add(maps: Sequence[LinearMap], signs: Sequence[int], sizes_agree: bool) -> LinearMap:
    """The sum of maps of one input, each times its sign.

    ``sizes_agree``: the results are known to be of one size for the input at hand. Raises
    InexactError where windows do not fit each other.
    """
    first = maps[0]
    window = _union(maps, sizes_agree)
    groups = reduce(gcd, (m.groups for m in maps))

    def weigh() -> Array:
        total = np.zeros((first.outputs, first.inputs // groups, *window.counts))
        for one, sign in zip(maps, signs, strict=True):
            place = (slice(None), slice(None), *one.window.places(window))
            total[place] += sign * regrouped(one, groups)
        return total

    def shift() -> Array:
        biases = [s * m.bias for m, s in zip(maps, signs, strict=True)]
        return np.asarray(np.sum(biases, axis=0))

    biased = any(m.shift is not None for m in maps)
    return LinearMap(
        first.inputs,
        first.outputs,
        groups,
        window,
        weigh,
        shift if biased else None,
        lambda: _sum_of_bounds(maps),
        depth=1 + max(m.depth for m in maps),
    )


def concatenate(maps: Sequence[LinearMap], sizes_agree: bool) -> LinearMap:
    """The results of maps of one input, channels behind channels. Raises InexactError."""
    window = _union(maps, sizes_agree)
    outputs = sum(m.outputs for m in maps)

    def weigh() -> Array:
        total = np.zeros((outputs, maps[0].inputs, *window.counts))
        start = 0
        for one in maps:
            rows = slice(start, start + one.outputs)
            total[(rows, slice(None), *one.window.places(window))] = regrouped(one, 1)
            start += one.outputs
        return total

    def shift() -> Array:
        return np.concatenate([m.bias for m in maps])

    biased = any(m.shift is not None for m in maps)
    return LinearMap(
        maps[0].inputs,
        outputs,
        1,
        window,
        weigh,
        shift if biased else None,
        lambda: _sum_of_bounds(maps),
        depth=1 + max(m.depth for m in maps),
    )


def settled(one: LinearMap) -> LinearMap:
    """The same map, computed now."""
    kernel, bias = one.kernel, one.bias
    return LinearMap(
        one.inputs,
        one.outputs,
        one.groups,
        one.window,
        lambda: kernel,
        None if one.shift is None else lambda: bias,
        lambda: (largest(kernel), largest(bias)),
    )


def offset_only(one: LinearMap) -> tuple[LinearMap, LinearMap]:
    """A map of no spatial axes as a product and the offset behind it."""
    product = LinearMap(
        one.inputs,
        one.outputs,
        one.groups,
        one.window,
        lambda: one.kernel,
        bound=lambda: (one.bounds[0], 0.0),
    )
    offset = LinearMap(
        one.outputs,
        one.outputs,
        one.outputs,
        one.window,
        lambda: np.ones((one.outputs, 1)),
        lambda: one.bias,
        lambda: (1.0, one.bounds[1]),
    )
    return product, offset


def embedded(one: LinearMap, window: Window) -> LinearMap:
    """The same map with zeros at the taps that only ``window`` has."""
    if window == one.window:
        return one

    def weigh() -> Array:
        kernel = np.zeros((*one.kernel.shape[:2], *window.counts))
        kernel[(slice(None), slice(None), *one.window.places(window))] = one.kernel
        return kernel

    return LinearMap(one.inputs, one.outputs, one.groups, window, weigh, one.shift, one.bound)


def _gives_what_is_read(inner: LinearMap, outer: LinearMap) -> bool:
    """Whether ``inner`` makes of 0 what ``outer`` reads beyond the border.

    Up to rounding: a border that was written out went through float32.
    """
    if outer.outside is None:
        return inner.shift is None or not inner.bias.any()
    largest = float(np.abs(inner.bias).max(initial=0))
    return bool(np.allclose(inner.bias, outer.outside, rtol=1e-5, atol=1e-6 * largest))


def _border_between(outer: LinearMap, inner: LinearMap) -> str | None:
    """What keeps two windows from being one, if anything."""
    reason = outer.window.cannot_follow(inner.window)
    if reason is not None or not outer.window.reads_outside:
        return reason
    if not _gives_what_is_read(inner, outer):
        return "pads with zeros what the layer before it makes something else of"
    return outer.window.border_of(inner.window)


def _sum_of_bounds(maps: Sequence[LinearMap]) -> Bounds:
    return sum(m.bounds[0] for m in maps), sum(m.bounds[1] for m in maps)


def _union(maps: Sequence[LinearMap], sizes_agree: bool) -> Window:
    try:
        return reduce(lambda a, b: a.joined(b, sizes_agree), (m.window for m in maps))
    except ValueError as error:
        raise InexactError(str(error)) from None
