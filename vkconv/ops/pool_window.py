"""The geometry of pooling windows: padding, output sizes and the taps of every window.

Sizes follow the standard (operators MaxPool and AveragePool): per spatial axis, with the window's
extent e = (k - 1) * dilation + 1,

    out = floor or ceil of ((in + pad_begin + pad_end - e) / stride) + 1

and, in ceil mode, a last window that would start beyond input and leading padding is dropped.
``auto_pad`` SAME_* gives out = ceil(in / stride) with the padding that this needs; VALID none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vkconv.errors import InvalidModelError
from vkconv.ir import Value
from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis, check_auto_pad, same_padding


@dataclass(frozen=True)
class PoolAttributes:
    """What all poolings have in common, as the node gives it."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    pads: tuple[int, ...] | None
    dilations: tuple[int, ...] | None
    auto_pad: str
    ceil_mode: int

    def axes(self, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        """The spatial axes of an input of that shape. Raises InvalidModelError."""
        rank = len(shape) - 2
        if rank < 1:
            raise InvalidModelError(f"input of shape {shape} has no spatial dimension to pool")
        kernel = self._per_axis("kernel_shape", self.kernel_shape, rank, 1)
        strides = self._per_axis("strides", self.strides, rank, 1)
        dilations = self._per_axis("dilations", self.dilations, rank, 1)
        check_auto_pad(self.auto_pad)
        pads = self._per_axis("pads", self.pads, 2 * rank, 0)
        if self.auto_pad == "VALID":
            pads = (0,) * (2 * rank)
        result = []
        for i, size in enumerate(shape[2:]):
            extent = (kernel[i] - 1) * dilations[i] + 1
            if self.auto_pad.startswith("SAME"):
                out = ceil_div(size, strides[i])
                begin, end = same_padding(size, strides[i], extent, self.auto_pad)
            else:
                begin, end = pads[i], pads[rank + i]
                out = self._windows(size + begin + end - extent, strides[i])
                if self.ceil_mode and (out - 1) * strides[i] >= size + begin:
                    out -= 1
            if out < 1:
                raise InvalidModelError(
                    f"a window of {extent} does not fit into axis {i + 2} of {shape}, padded by "
                    f"({begin}, {end})"
                )
            result.append(Axis(size, out, kernel[i], strides[i], dilations[i], begin, end))
        return tuple(result)

    def output_shape(self, x: Value) -> tuple[int, ...]:
        return (*x.dims[:2], *(a.out for a in self.axes(x.dims)))

    def _windows(self, room: int, stride: int) -> int:
        # a window larger than the input has negative room, which ceil mode may round up to one
        return max((ceil_div(room, stride) if self.ceil_mode else room // stride) + 1, 0)

    def _per_axis(
        self, name: str, values: tuple[int, ...] | None, count: int, least: int
    ) -> tuple[int, ...]:
        if values is None or (name != "kernel_shape" and not values):
            return (least,) * count
        if len(values) != count or min(values) < least:
            raise InvalidModelError(
                f"attribute '{name}' is {list(values)}; expected {count} numbers >= {least}"
            )
        return values


def taps(axes: tuple[Axis, ...]) -> Iterator[tuple[Any, ...]]:
    """Every tap of the window, row-major: the index into a padded (N, C, *spatial) tensor that
    selects it for all windows."""
    for position in itertools.product(*(range(a.kernel) for a in axes)):
        yield (..., *(a.tap(k) for a, k in zip(axes, position, strict=True)))


def padding(axes: tuple[Axis, ...]) -> list[tuple[int, int]]:
    """``numpy.pad`` widths of a whole (N, C, *spatial) tensor."""
    return [(0, 0), (0, 0), *(a.padding for a in axes)]
