"""ToC4 and ToLinear: the layout conversions that the layout pass inserts between nodes.

Not operators of ONNX. Both are the identity on values, but input and output lie differently in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.base import Lowering, Operator, Tensor, operator
from vkconv.ops.grids import spread


def _same_memory(view: View, batch_stride: int) -> bool:
    """Whether linear and C4 coincide: one pixel per channel, whole vec4s, batches without gaps."""
    n, blocks, h, w = c4_dims(view.shape)
    whole = h * w == 1 and view.shape[1] % 4 == 0 and view.offset % 4 == 0
    return whole and (n == 1 or batch_stride == blocks * 4)


@operator("ToC4", since=(1,), domain="vkconv")
class ToC4(Operator):
    """x (N, C, *spatial) linear -> [N][ceil(C/4)][*spatial] of vec4, padding lanes zero."""

    linear_inputs: ClassVar[frozenset[int]] = frozenset({0})

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        return x.copy()

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        blocks = c4_dims(x.shape)[1]
        if not _same_memory(x, blocks * 4):
            return None
        return (View(x.storage, x.shape, x.dtype, "c4", x.offset, blocks * 4),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        assert x is not None
        return _convert(ctx, "to_c4", ctx.operand(x, "linear"), y.on_device)


@operator("ToLinear", since=(1,), domain="vkconv")
class ToLinear(Operator):
    """x (N, C, *spatial) as [N][ceil(C/4)][*spatial] of vec4 -> dense row-major."""

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        return x.copy()

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "linear"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        if not _same_memory(x, x.batch_stride):
            return None
        return (View(x.storage, x.shape, x.dtype, "linear", x.offset),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        assert x is not None
        return _convert(ctx, "to_linear", ctx.operand(x, "c4"), y.on_device)


def _convert(ctx: Lowering, kernel: str, x: View, y: View) -> list[Dispatch]:
    n, blocks, h, w = c4_dims(x.shape)
    if n * blocks * h * w == 0:
        return []
    grid = spread(ctx.caps, h * w, blocks, n)
    return [
        ctx.dispatch(
            kernel,
            {"x": x, "y": y},
            {"batches": n, "channels": x.shape[1], "pixels": h * w},
            grid.spec,
            grid.count,
        )
    ]
