"""GlobalAveragePool and GlobalMaxPool: one number per channel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.pool_kernels import MAXIMUM_OF_MAP, MEAN_OF_MAP, global_pool, pools_globally
from vkconv.ops.registry import operator


class _GlobalPool(Operator):
    """What the two have in common: x (N, C, *spatial) -> y (N, C, 1, ...)."""

    def infer(self, x: Value) -> TensorType:
        if len(x.dims) < 3 or 0 in x.dims[2:]:
            raise InvalidModelError(f"input of shape {x.dims} has no pixels to pool")
        return TensorType(x.dtype, (*x.dims[:2], *(1 for _ in x.dims[2:])))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if len(outputs[0].dims) > 5:
            return f"no kernel for {len(outputs[0].dims) - 2} spatial dimensions"
        x = inputs[0]
        if x is not None and not pools_globally(MEAN_OF_MAP, prod(x.dims[2:])):
            return "its maps are too large for one invocation's loops"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x,), (y,) = inputs, outputs
        if x is None:
            raise InvalidModelError("the input is missing")
        how = MAXIMUM_OF_MAP if isinstance(self, GlobalMaxPool) else MEAN_OF_MAP
        return global_pool(ctx, ctx.operand(x, "c4"), y.on_device, how)


@operator("GlobalAveragePool", since=(1, 22))
class GlobalAveragePool(_GlobalPool):
    """y[n, c] = the mean of x[n, c] over all spatial positions."""

    def reference(self, x: Array) -> Array:
        mean = x.mean(axis=tuple(range(2, x.ndim)), keepdims=True, dtype=np.float64)
        return np.asarray(mean.astype(x.dtype))


@operator("GlobalMaxPool", since=(1, 22))
class GlobalMaxPool(_GlobalPool):
    """y[n, c] = the largest of x[n, c] over all spatial positions."""

    def reference(self, x: Array) -> Array:
        return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))
