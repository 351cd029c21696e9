"""Pad: a margin around a tensor (or, where a number is negative, less of it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.copying import c4_strides, row_major
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints, normalise_axis

MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}
#: dimensions of indexed_copy.comp
KERNEL_DIMS = 5
#: entries of an axis's table on the device; a longer one would take seconds to make
LONGEST_TABLE = 1 << 22
Ints = tuple[int, ...]


@operator("Pad", since=(1, 2, 11, 13, 18, 19, 21, 23, 24, 25))
class Pad(Operator):
    """y = x with pads[i] elements before and pads[rank + i] behind axis i: a constant, x reflected
    without its edge, its edge repeated, or x repeated. Negative pads crop first.

    ``pads`` is an attribute before version 11 (``paddings`` in version 1), an input since.
    """

    mode: str = "constant"
    pads: tuple[int, ...] | None = None
    paddings: tuple[int, ...] | None = None
    value: float = 0.0
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3})

    def infer(
        self,
        x: Value,
        pads: Value | None = None,
        constant_value: Value | None = None,
        axes: Value | None = None,
    ) -> TensorType:
        widths = self._widths(
            len(x.dims), known_ints(pads, "the input pads"), known_ints(axes, "the input axes")
        )
        if self.mode != "constant" and self.mode not in MODES:
            raise InvalidModelError(f"mode '{self.mode}' is not constant, reflect, edge or wrap")
        shape = tuple(d + a + b for d, (a, b) in zip(x.dims, widths, strict=True))
        left = [d + min(a, 0) + min(b, 0) for d, (a, b) in zip(x.dims, widths, strict=True)]
        if min(left, default=0) < 0:
            raise InvalidModelError(f"pads {widths} take more of {x.dims} than there is")
        return TensorType(x.dtype, shape)

    def reference(
        self,
        x: Array,
        pads: Array | None = None,
        constant_value: Array | None = None,
        axes: Array | None = None,
    ) -> Array:
        maps = self._maps(
            x.shape, *(None if a is None else tuple(map(int, a)) for a in (pads, axes))
        )
        if 0 in x.shape:
            shape = tuple(len(m) for m in maps)
            return np.full(shape, self._fill(constant_value), x.dtype)
        y: Array = x[np.ix_(*(np.maximum(m, 0) for m in maps))]
        for axis, positions in enumerate(maps):
            y[(slice(None),) * axis + (positions < 0,)] = self._fill(constant_value)
        return y

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        if max(outputs[0].dims, default=0) > LONGEST_TABLE:
            return f"an axis is longer than the {LONGEST_TABLE} entries of the kernel's table"
        if x is None or len(_collapsed(x.dims, self._node_maps(inputs))) > KERNEL_DIMS:
            return f"more than {KERNEL_DIMS} dimensions are padded, or lie between padded ones"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        x = inputs[0]
        assert x is not None
        channels = self._node_maps(inputs)[1] if len(x.dims) > 1 else np.zeros(0)
        spatial = np.array_equal(channels, np.arange(x.dims[1] if len(x.dims) > 1 else 0))
        return "c4" if x.layout == "c4" and x.dtype in FLOATS and spatial else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        if 0 in y.shape:
            return []
        source = ctx.operand(x, y.layout)
        maps = self._node_maps([None if t is None else t.value for t in inputs])
        if y.layout == "c4":
            _, blocks, _, _ = c4_dims(x.shape)
            spatial = [np.zeros(1, np.int64)] * (5 - len(maps)) + maps[2:]
            strides = (*c4_strides(source)[:2], *(0,) * (5 - len(maps)), *c4_strides(source)[2:])
            tables = [maps[0], np.arange(blocks), *spatial]
        else:
            collapsed = _collapsed(x.shape, maps)
            tables = [np.zeros(1, np.int64)] * (KERNEL_DIMS - len(collapsed))
            tables += [m for _, m in collapsed]
            inner = row_major([d for d, _ in collapsed])
            strides = (0,) * (KERNEL_DIMS - len(collapsed)) + inner
        sizes = [len(t) for t in tables]
        offsets = [np.where(t < 0, -1, t * s) for t, s in zip(tables, strides, strict=True)]
        value = inputs[2].array if len(inputs) > 2 and inputs[2] is not None else None
        return [_copy(ctx, source, y, sizes, np.concatenate(offsets), self._fill(value))]

    def _fill(self, constant_value: Array | None) -> float | int:
        if constant_value is None or constant_value.size == 0:
            return self.value
        number: float | int = constant_value.reshape(-1)[0].item()
        return number

    def _node_maps(self, inputs: Sequence[Value | None]) -> list[Array]:
        x = inputs[0]
        pads = inputs[1] if len(inputs) > 1 else None
        axes = inputs[3] if len(inputs) > 3 else None
        assert x is not None
        return self._maps(x.dims, known_ints(pads, "pads"), known_ints(axes, "axes"))

    def _maps(self, shape: Ints, pads: Ints | None, axes: Ints | None) -> list[Array]:
        """For each axis, the index in x of every index of y; -1 where the constant goes."""
        maps = []
        for size, (begin, end) in zip(shape, self._widths(len(shape), pads, axes), strict=True):
            kept: Array = np.arange(max(0, -begin), size - max(0, -end), dtype=np.int64)
            widths = (max(0, begin), max(0, end))
            if self.mode == "constant":
                maps.append(np.pad(kept, widths, constant_values=-1))
            elif len(kept) or widths == (0, 0):
                maps.append(np.pad(kept, widths, mode=MODES[self.mode]) if len(kept) else kept)
            else:
                raise InvalidModelError(f"an empty axis cannot be padded by {self.mode}")
        return maps

    def _widths(self, rank: int, pads: Ints | None, axes: Ints | None) -> list[tuple[int, int]]:
        for given in (self.pads, self.paddings):
            pads = given if pads is None else pads
        if pads is None:
            raise InvalidModelError("the pads are missing")
        where = range(rank) if axes is None else [normalise_axis(a, rank) for a in axes]
        if len(pads) != 2 * len(where):
            raise InvalidModelError(f"{len(pads)} pads for {len(where)} axes")
        widths = [(0, 0)] * rank
        for i, axis in enumerate(where):
            widths[axis] = (pads[i], pads[len(where) + i])
        return widths


def _collapsed(shape: Ints, maps: Sequence[Array]) -> list[tuple[int, Array]]:
    """(size in x, map) of as few dimensions as possible: neighbours that stay whole are merged."""
    result: list[tuple[int, Array]] = []
    last_whole = False
    for size, positions in zip(shape, maps, strict=True):
        whole = np.array_equal(positions, np.arange(size))
        if whole and last_whole:
            size *= result.pop()[0]
            positions = np.arange(size)
        result.append((size, positions))
        last_whole = whole
    return result


def _copy(
    ctx: Lowering, x: View, y: View, sizes: list[int], table: Array, fill: float | int
) -> Dispatch:
    grid = spread(ctx.caps, sizes[4], sizes[3], sizes[0] * sizes[1] * sizes[2])
    kind = np.int32 if x.is_integer else np.float32
    if x.is_integer:
        fill = max(min(int(fill), 2**31 - 1), -(2**31))
    is_c4 = y.layout == "c4"
    axes = {"width": "four"} if is_c4 else {"width": "one", "access": "ssbo"}
    return ctx.dispatch(
        "indexed_copy",
        {"x": x, "y": y, "table": ctx.constant(table.astype(np.int32), "table")},
        {
            "size": sizes,
            "y_stride": y.batch_stride // 4 if is_c4 else sizes[1] * sizes[2] * sizes[3] * sizes[4],
            "channels": y.shape[1] if is_c4 else 1,
            "fill": int(np.array(fill, kind).view(np.int32)),
        },
        grid.spec,
        grid.count,
        **axes,
    )
