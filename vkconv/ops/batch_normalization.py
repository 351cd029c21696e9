"""BatchNormalization. With constant statistics it is one multiplication and addition per element.

Mostly it never gets here: the passes fold it into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, c4_dims
from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.packing import pad_axis
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4


@operator("BatchNormalization", since=(1, 6, 7, 9, 14, 15))
class BatchNormalization(Operator):
    """y = (x - mean[c]) / sqrt(variance[c] + epsilon) * scale[c] + bias[c], x (N, C, ...).

    In training mode (version 14 on) the statistics are those of x, and the running ones are further
    outputs: running = given * momentum + current * (1 - momentum).
    """

    constant_inputs: ClassVar[frozenset[int]] = frozenset({1, 2, 3, 4})
    overwrites: ClassVar[frozenset[int]] = frozenset({0})
    epsilon: float = 1e-5
    momentum: float = 0.9
    training_mode: int = 0
    spatial: int = 1
    is_test: int = 0

    def infer(
        self, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
    ) -> tuple[TensorType, ...]:
        if self.spatial != 1:
            raise UnsupportedModelError("BatchNormalization with spatial=0 is not supported")
        if self.version < 7 and not self.is_test:
            raise UnsupportedModelError(
                "BatchNormalization in training mode (is_test is 0) is not supported"
            )
        if not x.dims:
            raise InvalidModelError("the input is a scalar")
        channels = x.dims[1] if len(x.dims) > 1 else 1
        for value in (scale, bias, mean, variance):
            if value.dims != (channels,):
                raise InvalidModelError(
                    f"'{value.name}' has shape {value.dims}, but the input has {channels} channels"
                )
        if not self.training_mode:
            return (x.known_type,)
        return x.known_type, mean.known_type, variance.known_type

    def reference(
        self, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
    ) -> tuple[Array, ...]:
        wide = x.astype(np.float64)
        running: tuple[Array, ...] = ()
        if self.training_mode:
            axes = (0, *range(2, x.ndim))
            given = (mean, variance)
            mean, variance = wide.mean(axes), wide.var(axes)
            running = tuple(
                np.asarray(old * self.momentum + new * (1 - self.momentum)).astype(old.dtype)
                for old, new in zip(given, (mean, variance), strict=True)
            )
        factor, offset = self.affine(scale, bias, mean, variance)
        shape = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (1,)
        y = wide * factor.reshape(shape) + offset.reshape(shape)
        return (y.astype(x.dtype), *running)

    def affine(
        self, scale: Array, bias: Array, mean: Array, variance: Array
    ) -> tuple[Array, Array]:
        """Factor and offset per channel, float64, such that y = x * factor + offset."""
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + self.epsilon)
        return factor, bias - mean * factor

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if self.training_mode:
            return "the statistics of training mode have no kernel"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        arrays = [t.array for t in inputs[1:] if t is not None and t.array is not None]
        factor, offset = self.affine(*arrays)
        sources, tag = tuple(arrays), f"with epsilon {self.epsilon}"
        buffers = {
            "x": ctx.operand(x, y.layout),
            "scale": ctx.prepack(sources, f"factor {tag}", lambda: pad_axis(factor, 0, 4)),
            "shift": ctx.prepack(sources, f"offset {tag}", lambda: pad_axis(offset, 0, 4)),
            "y": y,
        }
        if y.layout == "c4":
            n, channels, h, w = c4_dims(y.shape)
            pixels, dense_batch, axes = h * w, 0, {"width": "vec4"}
        else:
            n, channels = y.shape[0], y.shape[1] if len(y.shape) > 1 else 1
            pixels = prod(y.shape[2:])
            dense_batch, axes = channels * pixels, {"width": "scalar", "access": "ssbo"}
        if n * channels * pixels == 0:
            return []
        grid = spread(ctx.caps, pixels, channels, n)
        return [
            ctx.dispatch(
                "channel_affine",
                buffers,
                {"batches": n, "channels": channels, "pixels": pixels, "dense_batch": dense_batch},
                grid.spec,
                grid.count,
                **axes,
            )
        ]
