"""The kernels of composed and of grouped maps: arrays (outputs, inputs / groups, taps...)."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.ir import Array
from vkconv.passes.linear_window import Window

if TYPE_CHECKING:
    from vkconv.passes.linear_map import LinearMap


def combined(outer: LinearMap, inner: LinearMap, groups: int, window: Window) -> Array:
    """The kernel of ``outer`` behind ``inner``, in ``window``: sum over u + t = r of V[u] W[t]."""
    if prod(outer.window.counts) == 1 and window.counts == inner.window.counts:
        return _times(outer.kernel.reshape(outer.outputs, -1), inner, outer, groups)
    if prod(inner.window.counts) == 1 and window.counts == outer.window.counts:
        return _spread(outer, inner, groups)
    total = np.zeros((outer.outputs, inner.inputs // groups, *window.counts))
    for tap in product(*(range(n) for n in outer.window.counts)):
        index: tuple[Any, ...] = (slice(None), slice(None), *tap)
        block = _times(outer.kernel[index], inner, outer, groups)
        place = outer.window.places_after(inner.window, tap, window)
        total[(slice(None), slice(None), *place)] += block
    return total


def regrouped(one: LinearMap, groups: int) -> Array:
    """The kernel with ``groups`` groups, a divisor of the map's own: zeros between the blocks."""
    return _block_diagonal(one.kernel, one.groups, groups)


def _times(tap: Array, inner: LinearMap, outer: LinearMap, groups: int) -> Array:
    """One tap of ``outer``, (outputs, middle / outer.groups), times the kernel of ``inner``."""
    counts = inner.window.counts
    ones = (1,) * len(counts)
    if outer.is_depthwise:
        return np.asarray(tap.reshape(-1, 1, *ones) * inner.kernel)
    if inner.is_depthwise:
        kernel = inner.kernel.reshape(groups, 1, -1, *counts)
        result = tap.reshape(groups, outer.outputs // groups, -1, *ones) * kernel
        return np.asarray(result.reshape(outer.outputs, -1, *counts))
    rows = _block_diagonal(tap, outer.groups, groups).reshape(groups, outer.outputs // groups, -1)
    columns = regrouped(inner, groups).reshape(groups, inner.outputs // groups, -1)
    return np.asarray((rows @ columns).reshape(outer.outputs, inner.inputs // groups, *counts))


def _spread(outer: LinearMap, inner: LinearMap, groups: int) -> Array:
    """All taps of ``outer`` at once, where ``inner`` has one."""
    counts = outer.window.counts
    if outer.is_depthwise:
        return np.asarray(outer.kernel * inner.kernel)
    if inner.is_depthwise:
        factor = inner.kernel.reshape(groups, 1, -1, *(1,) * len(counts))
        result = outer.kernel.reshape(groups, outer.outputs // groups, -1, *counts) * factor
        return np.asarray(result.reshape(outer.outputs, -1, *counts))
    wide = regrouped(outer, groups)
    shape = (groups, outer.outputs // groups, inner.outputs // groups, prod(counts))
    columns = regrouped(inner, groups).reshape(groups, inner.outputs // groups, -1)
    rows = np.ascontiguousarray(wide.reshape(shape).swapaxes(2, 3)).reshape(groups, -1, shape[2])
    result = (rows @ columns).reshape(groups, shape[1], shape[3], -1).swapaxes(2, 3)
    return np.asarray(result.reshape(outer.outputs, inner.inputs // groups, *counts))


def _block_diagonal(kernel: Array, groups: int, fewer: int) -> Array:
    if groups == fewer:
        return kernel
    outputs, inputs = kernel.shape[:2]
    taps = kernel.shape[2:]
    each = groups // fewer
    blocks = kernel.reshape(fewer, each, outputs // groups, inputs, *taps)
    wide = np.zeros((fewer, each, outputs // groups, each, inputs, *taps))
    for index in range(each):
        wide[:, index, :, index] = blocks[:, index]
    return wide.reshape(outputs, each * inputs, *taps)
