"""LRN: local response normalisation across channels (AlexNet, GoogLeNet)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vkconv.dispatch import Dispatch, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator


@operator("LRN", since=(1, 13))
class LRN(Operator):
    """y[n, c] = x[n, c] / (bias + alpha / size * s)^beta, where s is the sum of x[n, c']^2 over
    c - floor((size - 1) / 2) <= c' <= c + ceil((size - 1) / 2). x is (N, C, *spatial)."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def infer(self, x: Value) -> TensorType:
        if self.size < 1 or len(x.dims) < 2:
            raise InvalidModelError(f"no window of {self.size} channels in {x.known_type}")
        return x.known_type

    def reference(self, x: Array) -> Array:
        channels = x.shape[1]
        before, after = self._reach(channels)
        square = x.astype(np.float32) ** 2
        total = np.zeros_like(square)
        for shift in range(-before, after + 1):
            low, high = max(0, -shift), min(channels, channels - shift)
            total[:, low:high] += square[:, low + shift : high + shift]
        power = (self.bias + self.alpha / self.size * total) ** self.beta
        return np.asarray((x / power).astype(x.dtype))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        rank = len(outputs[0].dims)
        return None if 3 <= rank <= 5 else f"no kernel for rank {rank}"

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        n, blocks, h, w = c4_dims(y.shape)
        if y.span == 0:
            return []
        before, after = self._reach(y.shape[1])
        grid = spread(ctx.caps, h * w, blocks, n)
        return [
            ctx.dispatch(
                "lrn",
                {"x": ctx.operand(x, "c4"), "y": y},
                {
                    "batches": n,
                    "channels": y.shape[1],
                    "pixels": h * w,
                    "scale": self.alpha / self.size,
                    "beta": self.beta,
                    "bias": self.bias,
                },
                {**grid.spec, "before": before, "after": after},
                grid.count,
            )
        ]

    def _reach(self, channels: int) -> tuple[int, int]:
        """Channels before and behind one that its window can meet."""
        most = max(channels - 1, 0)
        return min((self.size - 1) // 2, most), min(self.size // 2, most)
