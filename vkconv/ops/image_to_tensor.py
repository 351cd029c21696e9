"""ImageToTensor: 8-bit pixels to the normalised tensor a model takes. Not an operator of ONNX; a
session puts it in front of a model that is fed images (``image_inputs.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.image_inputs import MOST_CHANNELS
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div


@operator("ImageToTensor", since=(1,), domain="vkconv")
class ImageToTensor(Operator):
    """y[n, c, p] = x[n, p, source[c]] * factor[c] + offset[c], in float32.

    words: the bytes of x (N, H, W, C) in their order, four in an int32 (little endian), the last
    one padded. table (3, C) float32: the rows factor, offset, source. shape: (N, C, H, W) of y.
    """

    linear_inputs: ClassVar[frozenset[int]] = frozenset({0, 1})
    device_dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "float16", "int32"})
    shape: tuple[int, ...]
    dtype: str = "float32"

    def infer(self, words: Value, table: Value) -> TensorType:
        n, c, h, w = self.shape
        if not 1 <= c <= MOST_CHANNELS:
            raise InvalidModelError(f"an image has 1 to {MOST_CHANNELS} channels, not {c}")
        if words.dims != (ceil_div(n * c * h * w, 4),) or table.dims != (3, c):
            raise InvalidModelError(
                f"{words.dims} words and a table {table.dims} do not fit {self}"
            )
        return TensorType(self.dtype, self.shape)

    def reference(self, words: Array, table: Array) -> Array:
        n, c, h, w = self.shape
        pixels = words.astype("<i4").view(np.uint8)[: n * c * h * w].reshape(n, h, w, c)
        factor, offset, source = table
        chosen = pixels[..., source.astype(np.int64)].astype(np.float32)
        return np.ascontiguousarray((chosen * factor + offset).transpose(0, 3, 1, 2)).astype(
            self.dtype
        )

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        words, table = inputs
        assert words is not None and table is not None
        y = outputs[0].on_device
        n, _, h, w = c4_dims(y.shape)
        count = n * h * w
        if not count:
            return []
        grid = spread(ctx.caps, ceil_div(count, 4))
        return [
            ctx.dispatch(
                "image_to_tensor",
                {
                    "x": ctx.operand(words, "linear"),
                    "table": ctx.operand(table, "linear"),
                    "y": y,
                },
                {"count": count, "pixels": h * w},
                {**grid.spec, "channels": y.shape[1]},
                grid.count,
            )
        ]
