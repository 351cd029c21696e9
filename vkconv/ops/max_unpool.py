"""MaxUnpool: the values of a MaxPool put back where its indices say they were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, PushValue
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.conv_geometry import per_axis
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import known_ints

Shape = tuple[int, ...]


@operator("MaxUnpool", since=(9, 11, 22))
class MaxUnpool(Operator):
    """y[indices[i]] = x[i], zero elsewhere, for x and indices (N, C, *spatial).

    Indices count the elements of a tensor whose axes are (size - 1) stride - pads + kernel;
    ``output_shape`` may be larger, then that tensor is its low end. Indices outside are left out;
    of several equal ones, any may win.
    """

    kernel_shape: tuple[int, ...]
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    device_dtypes: ClassVar[frozenset[str]] = FLOATS

    def inner(self, shape: Shape) -> Shape:
        """The shape that indices refer to, for an x of ``shape``."""
        rank = len(shape) - 2
        if rank < 1:
            raise InvalidModelError(f"input of shape {shape} has no spatial dimension")
        kernel = per_axis("kernel_shape", self.kernel_shape, rank, 1, 1)
        strides = per_axis("strides", self.strides, rank, 1, 1)
        pads = per_axis("pads", self.pads, 2 * rank, 0, 0)
        sizes = tuple(
            (size - 1) * strides[i] + kernel[i] - pads[i] - pads[rank + i]
            for i, size in enumerate(shape[2:])
        )
        if min(sizes) < 1:
            raise InvalidModelError(f"pads {list(pads)} leave nothing of {shape}")
        return (*shape[:2], *sizes)

    def infer(self, x: Value, indices: Value, output_shape: Value | None = None) -> TensorType:
        if indices.dims != x.dims:
            raise InvalidModelError(f"indices have shape {indices.dims}, x has {x.dims}")
        inner = self.inner(x.dims)
        given = known_ints(output_shape, "the input output_shape")
        if given is not None and (given[:2] != inner[:2] or len(given) != len(inner)):
            raise InvalidModelError(f"output_shape {given} does not fit x of shape {x.dims}")
        if given is not None and min(given) < 0:
            raise InvalidModelError(f"output_shape {given} is negative")
        return TensorType(x.dtype, given or inner)

    def reference(self, x: Array, indices: Array, output_shape: Array | None = None) -> Array:
        inner = self.inner(x.shape)
        flat = np.zeros(math.prod(inner), x.dtype)
        places = indices.reshape(-1)
        known = (places >= 0) & (places < flat.size)
        flat[places[known]] = x.reshape(-1)[known]
        whole = flat.reshape(inner)
        if output_shape is None:
            return whole
        y = np.zeros(tuple(map(int, output_shape)), x.dtype)
        shared = tuple(slice(0, min(a, b)) for a, b in zip(inner, y.shape, strict=True))
        y[shared] = whole[shared]
        return y

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        axes = len(outputs[0].dims) - 2
        return None if axes <= 3 else f"MaxUnpool over {axes} spatial axes has no kernel"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, indices, y = inputs[0], inputs[1], outputs[0].on_device
        assert x is not None and indices is not None
        missing = [1] * (5 - len(x.shape))
        push: dict[str, PushValue] = {
            "maps": x.shape[0] * x.shape[1],
            "inner": missing + list(self.inner(x.shape)[2:]),
            "outer": missing + list(y.shape[2:]),
        }
        buffers = {
            "x": ctx.operand(x, "linear"),
            "indices": ctx.operand(indices, "linear"),
            "y": y,
        }
        steps = []
        for fill, count in ((1, y.span), (0, math.prod(x.shape))):
            if count and y.span:
                grid = spread(ctx.caps, count)
                spec = {**grid.spec, "FILL": fill}
                push["count"] = count
                steps.append(ctx.dispatch("max_unpool", buffers, dict(push), spec, grid.count))
        return steps
