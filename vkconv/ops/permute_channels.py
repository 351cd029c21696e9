"""PermuteChannels: some channels of a tensor, in any order. Not an operator of ONNX; a pass makes
it of channel shuffles (``passes/recognise_channel_shuffle.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.base import DEVICE_DTYPES, Lowering, Operator, Tensor, ceil_div, is_c4, operator
from vkconv.ops.grids import spread


@operator("PermuteChannels", since=(1,), domain="vkconv")
class PermuteChannels(Operator):
    """y[n, i, p] = x[n, channels[i], p]; x (N, C, *spatial), y (N, len(channels), *spatial)."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    channels: tuple[int, ...]

    def infer(self, x: Value) -> TensorType:
        if len(x.dims) < 2 or not all(0 <= c < x.dims[1] for c in self.channels):
            raise InvalidModelError(f"channels {self._brief()} are not all in {x.known_type}")
        return TensorType(x.dtype, (x.dims[0], len(self.channels), *x.dims[2:]))

    def reference(self, x: Array) -> Array:
        return np.take(x, self.channels, axis=1)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        """Consecutive channels that lie as whole vec4s are there already."""
        first = self.channels[0] if self.channels else 0
        end = first + len(self.channels)
        whole = first % 4 == 0 and (end % 4 == 0 or end == x.shape[1])
        if x.layout != "c4" or not whole or self.channels != tuple(range(first, end)):
            return None
        _, _, h, w = c4_dims(x.shape)
        offset = x.offset + first * h * w
        return (View(x.storage, outputs[0].dims, x.dtype, "c4", offset, x.batch_stride),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), y = inputs, outputs[0].on_device
        assert x is not None
        n, _, h, w = c4_dims(y.shape)
        c4 = y.layout == "c4"
        rows = ceil_div(y.shape[1], 4) if c4 else y.shape[1]
        if n * rows * h * w == 0:
            return []
        padded = np.full(rows * 4 if c4 else rows, -1, np.int32)
        padded[: len(self.channels)] = self.channels
        source = ctx.operand(x, y.layout)
        grid = spread(ctx.caps, h * w, rows, n)
        axes = {"layout": "c4"} if c4 else {"layout": "linear", "access": "ssbo"}
        return [
            ctx.dispatch(
                "permute_channels",
                {"x": source, "order": ctx.constant(padded, "channels"), "y": y},
                {"batches": n, "rows": rows, "pixels": h * w, "x_rows": x.shape[1]},
                grid.spec,
                grid.count,
                **axes,
            )
        ]

    def _brief(self) -> str:
        shown = ", ".join(map(str, self.channels[:8]))
        return f"[{shown}{', ...' if len(self.channels) > 8 else ''}]"
