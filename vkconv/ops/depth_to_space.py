"""DepthToSpace and SpaceToDepth: channels become pixels and back, in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import Dim, row_major, strided_copy
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator

Shape = tuple[int, ...]


class _Rearranging(Operator):
    """What the two have in common: x reshaped to six dimensions, then transposed."""

    blocksize: int
    mode: str
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def six_dims(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """x's shape in six dimensions, their order in y, and y's shape."""
        raise NotImplementedError

    def check(self, shape: Shape) -> tuple[int, int, int, int, int]:
        """N, C, H, W and the block size. Raises InvalidModelError."""
        if len(shape) != 4 or self.blocksize < 1:
            raise InvalidModelError(f"{shape} cannot be cut into blocks of {self.blocksize}")
        if self.mode not in ("DCR", "CRD"):
            raise InvalidModelError(f"mode '{self.mode}' is neither DCR nor CRD")
        n, c, h, w = shape
        return n, c, h, w, self.blocksize

    def infer(self, x: Value) -> TensorType:
        return TensorType(x.dtype, self.six_dims(x.dims)[2])

    def reference(self, x: Array) -> Array:
        dims, order, shape = self.six_dims(x.shape)
        return x.reshape(dims).transpose(order).reshape(shape)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        sizes, order, _ = self.six_dims(x.shape)
        strides = row_major(sizes)
        targets = row_major([sizes[p] for p in order])
        dims = [Dim(sizes[p], strides[p], t) for p, t in zip(order, targets, strict=True)]
        return strided_copy(ctx, ctx.operand(x, "linear"), y, dims)


@operator("DepthToSpace", since=(1, 11, 13, 28))
class DepthToSpace(_Rearranging):
    """(N, C, H, W) -> (N, C / b^2, H * b, W * b). DCR: the channels are (row, column in the block,
    channel), CRD: (channel, row, column)."""

    blocksize: int
    mode: str = "DCR"

    def six_dims(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        n, c, h, w, b = self.check(shape)
        if c % (b * b):
            raise InvalidModelError(f"{c} channels do not make blocks of {b} x {b}")
        out = (n, c // (b * b), h * b, w * b)
        if self.mode == "DCR":
            return (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2), out
        return (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3), out


@operator("SpaceToDepth", since=(1, 13, 28))
class SpaceToDepth(_Rearranging):
    """(N, C, H, W) -> (N, C * b^2, H / b, W / b); the inverse of DepthToSpace of the same mode."""

    blocksize: int
    mode: str = "DCR"

    def six_dims(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        n, c, h, w, b = self.check(shape)
        if h % b or w % b:
            raise InvalidModelError(f"{h} x {w} pixels cannot be cut into blocks of {b} x {b}")
        order = (0, 3, 5, 1, 2, 4) if self.mode == "DCR" else (0, 1, 3, 5, 2, 4)
        return (n, c, h // b, b, w // b, b), order, (n, c * b * b, h // b, w // b)
