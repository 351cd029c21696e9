"""CenterCropPad: the middle of a tensor, or a tensor in the middle of zeros; each axis as its size
asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, Node, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.pad import Pad
from vkconv.ops.registry import create, operator
from vkconv.ops.shapes import known_ints, normalise_axis

Shape = tuple[int, ...]


@operator("CenterCropPad", since=(18,))
class CenterCropPad(Operator):
    """y = x with ``axes`` (all by default) brought to the sizes in ``shape``.

    A Pad whose widths are half of what is missing, or, negative, of what is too much; an odd one
    goes to the end.
    """

    axes: tuple[int, ...] | None = None
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def target(self, dims: Shape, shape: Sequence[int] | None) -> Shape:
        axes = range(len(dims)) if self.axes is None else self.axes
        if shape is None or len(shape) != len(axes) or min(shape, default=0) < 0:
            raise InvalidModelError(f"shape {shape} does not fit {len(axes)} axes of {dims}")
        result = list(dims)
        for axis, size in zip(axes, shape, strict=True):
            result[normalise_axis(axis, len(dims))] = int(size)
        return tuple(result)

    def infer(self, x: Value, shape: Value) -> TensorType:
        return TensorType(x.dtype, self.target(x.dims, known_ints(shape, "the input shape")))

    def reference(self, x: Array, shape: Array) -> Array:
        return _pad(x.shape, self.target(x.shape, shape.reshape(-1).tolist())).reference(x)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        return self._of(inputs, outputs).unsupported(inputs[:1], outputs)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return self._of(inputs, outputs).layout(inputs[:1], outputs)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x = inputs[0]
        assert x is not None
        return _pad(x.shape, outputs[0].shape).lower(ctx, inputs[:1], outputs)

    def _of(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Pad:
        x = inputs[0]
        assert x is not None
        return _pad(x.dims, outputs[0].dims)


def _pad(dims: Shape, target: Shape) -> Pad:
    """The Pad that does it, in the version whose pads are an attribute."""
    missing = [size - d for d, size in zip(dims, target, strict=True)]
    # halves towards zero
    begins = [m // 2 if m >= 0 else -(-m // 2) for m in missing]
    ends = [m - b for m, b in zip(missing, begins, strict=True)]
    made = create(Node("Pad", [], [], {"pads": (*begins, *ends)}, opset=2))
    assert isinstance(made, Pad)
    return made
