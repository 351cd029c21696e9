"""Col2Im: patches, as columns, added up into an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.conv_geometry import conv_axes
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints
from vkconv.ops.window import Axis

Shape = tuple[int, ...]


@operator("Col2Im", since=(18,))
class Col2Im(Operator):
    """y[n, c, p] = sum of x[n, (c, k), q] over taps k and windows q with q stride - pad +
    k dilation = p, for x (N, C prod(block_shape), windows); y (N, C, *image_shape).

    What a convolution with that kernel over the image would read, put back; torch's fold.
    """

    dilations: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({2})
    device_dtypes: ClassVar[frozenset[str]] = FLOATS

    def axes(self, image: Shape, block: Shape) -> tuple[Axis, ...]:
        """The spatial axes of the convolution that reads those patches from the image."""
        if not image or len(image) != len(block) or min(image) < 1 or min(block) < 1:
            raise InvalidModelError(f"image_shape {image} and block_shape {block} do not fit")
        return conv_axes(image, block, self.strides, self.pads, self.dilations, "NOTSET")

    def infer(self, x: Value, image_shape: Value, block_shape: Value) -> TensorType:
        image = known_ints(image_shape, "the input image_shape") or ()
        block = known_ints(block_shape, "the input block_shape") or ()
        axes = self.axes(image, block)
        windows, taps = math.prod(a.out for a in axes), math.prod(block)
        if len(x.dims) != 3 or x.dims[1] % taps or x.dims[2] != windows:
            raise InvalidModelError(
                f"an input of shape {x.dims} is no {windows} blocks of {taps} elements"
            )
        return TensorType(x.dtype, (x.dims[0], x.dims[1] // taps, *image))

    def reference(self, x: Array, image_shape: Array, block_shape: Array) -> Array:
        image, block = tuple(map(int, image_shape)), tuple(map(int, block_shape))
        axes = self.axes(image, block)
        maps = x.shape[0] * (x.shape[1] // math.prod(block))
        work = np.float32 if x.dtype == np.float16 else x.dtype
        parts = x.astype(work).reshape(maps, *block, *(a.out for a in axes))
        padded = np.zeros((maps, *(a.size + max(a.begin, 0) + max(a.end, 0) for a in axes)), work)
        for tap in product(*(range(k) for k in block)):
            begins = (
                k * a.dilation + max(a.begin, 0) - a.begin for a, k in zip(axes, tap, strict=True)
            )
            window: tuple[Any, ...] = tuple(
                slice(b, b + (a.out - 1) * a.stride + 1, a.stride)
                for a, b in zip(axes, begins, strict=True)
            )
            source: tuple[Any, ...] = (slice(None), *tap)
            padded[(slice(None), *window)] += parts[source]
        inner = tuple(slice(max(a.begin, 0), max(a.begin, 0) + a.size) for a in axes)
        shape = (x.shape[0], x.shape[1] // math.prod(block), *image)
        return padded[(slice(None), *inner)].reshape(shape).astype(x.dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        axes = len(outputs[0].dims) - 2
        return None if axes <= 3 else f"Col2Im over {axes} spatial axes has no kernel"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, block, y = inputs[0], inputs[2], outputs[0].on_device
        assert x is not None and block is not None and block.array is not None
        if y.span == 0:
            return []
        axes = self.axes(y.shape[2:], tuple(int(k) for k in block.array.reshape(-1)))
        axes = (Axis(1, 1, 1, 1, 1, 0, 0),) * (3 - len(axes)) + axes
        pixels, maps = math.prod(y.shape[2:]), y.shape[0] * y.shape[1]
        where = spread(ctx.caps, pixels, maps)
        return [
            ctx.dispatch(
                "col2im",
                {"x": ctx.operand(x, "linear"), "y": y},
                {
                    "maps": maps,
                    "image": [a.size for a in axes],
                    "windows": [a.out for a in axes],
                    "kernel": [a.kernel for a in axes],
                    "stride": [a.stride for a in axes],
                    "dilation": [a.dilation for a in axes],
                    "pad": [a.begin for a in axes],
                },
                where.spec,
                where.count,
            )
        ]
