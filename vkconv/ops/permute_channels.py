"""PermuteChannels: some channels of tensors, in any order. Not an operator of ONNX: passes make it
of channel shuffles (``recognise_channel_shuffle``, ``absorb_channel_order``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import Grid, spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div, is_c4

#: channels of a vec4
BLOCK = 4
#: pixels an invocation copies on a CPU driver, where what it reads of the order is read for all of
#: them
CPU_PIXELS = 8


@operator("PermuteChannels", since=(1,), domain="vkconv")
class PermuteChannels(Operator):
    """y[n, i, p] = x[n, channels[i], p], or 0 where channels[i] is -1.

    x: the inputs (N, C_k, *spatial) one after the other along the channels; y (N, len(channels),
    *spatial). The four channels of y that share a vec4 come from one input.
    """

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    channels: tuple[int, ...]

    def infer(self, *inputs: Value) -> TensorType:
        x = inputs[0] if inputs else None
        if x is None or len(x.dims) < 2:
            raise InvalidModelError("PermuteChannels needs an input of two or more dimensions")
        for value in inputs:
            if value.dtype != x.dtype or _without_channels(value) != _without_channels(x):
                raise InvalidModelError(f"{value.known_type} does not go with {x.known_type}")
        if not all(-1 <= c < sum(v.dims[1] for v in inputs) for c in self.channels):
            raise InvalidModelError(
                f"channels {self._brief()} are not all in "
                f"{' and '.join(str(v.known_type) for v in inputs)}"
            )
        for at, owners in enumerate(self._owners(inputs)):
            if len(owners) > 1:
                raise InvalidModelError(
                    f"channels {at * BLOCK} to {at * BLOCK + BLOCK - 1} come from several inputs"
                )
        return TensorType(x.dtype, (x.dims[0], len(self.channels), *x.dims[2:]))

    def reference(self, *inputs: Array) -> Array:
        zeros = np.zeros_like(inputs[0][:, :1])
        return np.take(np.concatenate([*inputs, zeros], axis=1), self.channels, axis=1)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        fits = outputs[0].dtype in FLOATS and 3 <= len(outputs[0].dims) <= 5
        return "c4" if fits and any(is_c4([v]) for v in inputs) else "linear"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        """Consecutive channels of one input that lie as whole vec4s are there already."""
        node = outputs[0].producer
        first = self.channels[0] if self.channels else 0
        end = first + len(self.channels)
        whole = first % BLOCK == 0 and (end % BLOCK == 0 or end == x.shape[1])
        alone = node is not None and len(node.inputs) == 1
        if x.layout != "c4" or not (whole and alone and self.channels == tuple(range(first, end))):
            return None
        _, _, h, w = c4_dims(x.shape)
        offset = x.offset + first * h * w
        return (View(x.storage, outputs[0].dims, x.dtype, "c4", offset, x.batch_stride),)

    def place(self, y: View, inputs: Sequence[Value | None]) -> tuple[View | None, ...] | None:
        """An input whose channels all lie in y as they lie in it can be written there."""
        values = [v for v in inputs if v is not None]
        if y.layout != "c4" or len(values) < 2:
            return None
        _, _, h, w = c4_dims(y.shape)
        found: list[View | None] = []
        for value, first in _ranges(values):
            at = self._position(first, value.dims[1])
            placed = at is not None and not value.is_constant
            offset = y.offset + (at or 0) * h * w
            view = View(y.storage, value.dims, value.dtype, "c4", offset, y.batch_stride)
            found.append(view if placed else None)
        return tuple(found)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        tensors = [t for t in inputs if t is not None]
        values = [t.value for t in tensors]
        places = self.place(y, values) or (None,) * len(tensors)
        owners = self._owners(values, BLOCK if y.layout == "c4" else 1)
        copied = [k for k, t in enumerate(tensors) if places[k] is None or t.view != places[k]]
        # rows of nothing but zeros are written with those of the first
        zeros = [row for row, owner in enumerate(owners) if not owner]
        rows = {k: [row for row, owner in enumerate(owners) if owner == {k}] for k in copied}
        rows |= {k: sorted(rows.get(k, []) + zeros) for k in (copied or [0])[:1]}
        firsts = [first for _, first in _ranges(values)]
        return [
            step
            for k, wanted in rows.items()
            for step in self._copy(ctx, ctx.operand(tensors[k], y.layout), firsts[k], y, wanted)
        ]

    def _copy(
        self, ctx: Lowering, x: View, first: int, y: View, rows: Sequence[int]
    ) -> list[Dispatch]:
        """Those rows of y that come from x, whose channels are counted from ``first`` on."""
        n, _, h, w = c4_dims(y.shape)
        if n * len(rows) * h * w == 0:
            return []
        c4 = y.layout == "c4"
        order, blocks = self._block_order(first, rows) if c4 else (self._order(first, rows), 1)
        grid = _grid(ctx.caps, h * w, len(rows), n)
        axes = {"layout": "c4"} if c4 else {"layout": "linear", "access": "ssbo"}
        return [
            ctx.dispatch(
                "permute_channels",
                {"x": x, "order": ctx.constant(order, "channels"), "y": y},
                {
                    "batches": n,
                    "rows": len(rows),
                    "pixels": h * w,
                    "x_rows": x.shape[1],
                    "y_rows": y.shape[1],
                },
                grid.spec | ({"BLOCKS": blocks} if c4 else {}),
                grid.count,
                **axes,
            )
        ]

    def _order(self, first: int, rows: Sequence[int]) -> Array:
        """Per row: the channel of y, and that of x or -1; int32 (rows, 2)."""
        pairs = [(row, self.channels[row]) for row in rows]
        return np.array([(row, c - first if c >= 0 else -1) for row, c in pairs], np.int32)

    def _block_order(self, first: int, rows: Sequence[int]) -> tuple[Array, int]:
        """Per row the vec4 of y; where its four channels come from, as ``permute_channels.comp``
        has it; the vec4s of x they are in. int32 (rows, 6), and the most vec4s of x in a row."""
        table = np.zeros((len(rows), 2 + BLOCK), np.int32)
        most = 1
        for entry, row in zip(table, rows, strict=True):
            wanted = self.channels[row * BLOCK : row * BLOCK + BLOCK]
            taken = {lane: c - first for lane, c in enumerate(wanted) if c >= 0}
            blocks = sorted({c // BLOCK for c in taken.values()})
            codes = sum(
                (blocks.index(c // BLOCK) * BLOCK + c % BLOCK << lane * 4) + (1 << 16 + lane)
                for lane, c in taken.items()
            )
            entry[:2] = row, codes
            entry[2 : 2 + len(blocks)] = blocks
            most = max(most, len(blocks))
        return table, most

    def _position(self, first: int, count: int) -> int | None:
        """Where the channels of an input stand in y, if they lie there as vec4 for vec4 in it; they
        are ``count`` from ``first`` on."""
        end = first + count
        if not count or first not in self.channels:
            return None
        at = self.channels.index(first)
        behind = self.channels[at + count : -(-(at + count) // BLOCK) * BLOCK]
        own = sum(first <= c < end for c in self.channels)
        whole = at % BLOCK == 0 and own == count and all(c < 0 for c in behind)
        return at if whole and self.channels[at : at + count] == tuple(range(first, end)) else None

    def _owners(self, inputs: Sequence[Value], size: int = BLOCK) -> list[set[int]]:
        """For each ``size`` channels of y the inputs that they come from."""
        ends = np.cumsum([v.dims[1] for v in inputs])
        owner = np.searchsorted(ends, self.channels, side="right")
        rows = range(0, len(self.channels), size)
        return [
            {int(owner[i]) for i in range(r, min(r + size, len(owner))) if self.channels[i] >= 0}
            for r in rows
        ]

    def _brief(self) -> str:
        shown = ", ".join(map(str, self.channels[:8]))
        return f"[{shown}{', ...' if len(self.channels) > 8 else ''}]"


def _without_channels(value: Value) -> tuple[int, ...]:
    return (*value.dims[:1], *value.dims[2:])


def _ranges(inputs: Sequence[Value]) -> Iterator[tuple[Value, int]]:
    """Inputs with the number of their first channel among all."""
    first = 0
    for value in inputs:
        yield value, first
        first += value.dims[1]


def _grid(caps: DeviceCaps, pixels: int, rows: int, batches: int) -> Grid:
    """``spread``; on a CPU driver with several pixels an invocation."""
    grid = spread(caps, pixels, rows, batches)
    if caps.kind != "cpu":
        return grid
    x, y, z = grid.count
    fewer = ceil_div(x, CPU_PIXELS)
    return Grid((fewer, y, z), grid.spec | {"loop_x": int(fewer < x or grid.spec["loop_x"])})
