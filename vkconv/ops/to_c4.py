"""ToC4 and ToLinear: the layout conversions that the layout pass inserts between nodes.

Not operators of ONNX. Both are the identity on values, but input and output lie differently in
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.packing import pad_axis
from vkconv.ops.registry import operator


def _same_memory(view: View, batch_stride: int) -> bool:
    """Whether linear and C4 coincide: one pixel per channel, whole vec4s, batches without gaps."""
    n, blocks, h, w = c4_dims(view.shape)
    whole = h * w == 1 and view.shape[1] % 4 == 0 and view.offset % 4 == 0
    return whole and (n == 1 or batch_stride == blocks * 4)


@operator("ToC4", since=(1,), domain="vkconv")
class ToC4(Operator):
    """x (N, C, *spatial) linear -> [N][ceil(C/4)][*spatial] of vec4, padding lanes zero.

    factor, offset (C): y[n, c] = x[n, c] factor[c] + offset[c], both or neither.
    """

    linear_inputs: ClassVar[frozenset[int]] = frozenset({0, 1, 2})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})

    def infer(
        self, x: Value, factor: Value | None = None, offset: Value | None = None
    ) -> TensorType:
        for value in (factor, offset):
            if value is not None and value.dims != x.dims[1:2]:
                raise InvalidModelError(f"{value.dims} numbers for {x.dims[1]} channels")
        return x.known_type

    def reference(
        self, x: Array, factor: Array | None = None, offset: Array | None = None
    ) -> Array:
        if factor is None or offset is None:
            return x.copy()
        shape = (-1, *[1] * (x.ndim - 2))
        y: Array = x * factor.reshape(shape) + offset.reshape(shape)
        return y.astype(x.dtype)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        blocks, node = c4_dims(x.shape)[1], outputs[0].producer
        affine = node is not None and len(node.inputs) > 1
        if affine or not _same_memory(x, blocks * 4):
            return None
        return (View(x.storage, x.shape, x.dtype, "c4", x.offset, blocks * 4),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, factor, offset = [*inputs, None, None][:3]
        assert x is not None
        source, y = ctx.operand(x, "linear"), outputs[0].on_device
        if factor is None or offset is None:
            return _convert(ctx, "to_c4", source, y, {}, affine="off")
        affine = {
            "scale": _padded(ctx, factor, "factors of channels"),
            "shift": _padded(ctx, offset, "offsets of channels"),
        }
        return _convert(ctx, "to_c4", source, y, affine, affine="on")


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
        return lower_to_linear(ctx, ctx.operand(x, "c4"), y.on_device)


def lower_to_linear(ctx: Lowering, x: View, y: View) -> list[Dispatch]:
    """y = x, from C4."""
    return _convert(ctx, "to_linear", x, y, {})


def _padded(ctx: Lowering, numbers: Tensor, name: str) -> View:
    """A constant of a number for each channel, in whole vec4s."""
    array = numbers.array
    if array is None:
        raise InvalidModelError(f"'{numbers.value.name}' is computed by the model")
    return ctx.prepack(array, name, lambda: pad_axis(array, 0, 4))


def _convert(
    ctx: Lowering, kernel: str, x: View, y: View, others: Mapping[str, View], **axes: str
) -> list[Dispatch]:
    n, blocks, h, w = c4_dims(x.shape)
    pixels = h * w
    if n * blocks * pixels == 0:
        return []
    # a CPU driver's time goes to scalar loads and stores; a GPU joins those of neighbouring lanes
    linear = x if kernel == "to_c4" else y
    four = ctx.caps.kind == "cpu" and pixels % 4 == linear.offset % 4 == 0
    if four:
        pixels //= 4
    elif kernel == "to_c4":
        axes["access"] = "ssbo"  # scalars are no texels
    grid = spread(ctx.caps, pixels, blocks, n)
    return [
        ctx.dispatch(
            kernel,
            {"x": x, "y": y, **others},
            {"batches": n, "channels": x.shape[1], "pixels": pixels},
            grid.spec,
            grid.count,
            pixels="four" if four else "one",
            **axes,
        )
    ]
