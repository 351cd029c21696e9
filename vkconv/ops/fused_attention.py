"""Attention as exporters spell it out: what the pass ``fuse_attention`` makes of two products and a
softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.attention import Sizes
from vkconv.ops.attention_kernels import (
    Window,
    masked_softmax,
    score,
    scratch_tensor,
    weigh,
    whole_keys,
)
from vkconv.ops.binary import require_same_dtype
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matmul import too_deep
from vkconv.ops.operator import Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


@operator("Attention", since=(1,), domain="vkconv")
class FusedAttention(Operator):
    """y = softmax(scale q k^T + mask) v along the last axis; q (..., S, D), v (..., T, E), 2-D to
    4-D, one batch.

    k is (..., T, D), or (..., D, T) with ``keys_are_rows`` 0. A row of minus infinities gives NaN,
    as Softmax does.
    """

    scale: float = 1.0
    keys_are_rows: int = 1

    def sizes(self, q: Sequence[int], k: Sequence[int], v: Sequence[int]) -> Sizes:
        if not len(q) == len(k) == len(v) or not 2 <= len(q) <= 4:
            raise InvalidModelError(f"q {tuple(q)}, k {tuple(k)} and v {tuple(v)} differ in rank")
        keys, size = (k[-2], k[-1]) if self.keys_are_rows else (k[-1], k[-2])
        if not tuple(q[:-2]) == tuple(k[:-2]) == tuple(v[:-2]) or size != q[-1] or keys != v[-2]:
            raise InvalidModelError(f"q {tuple(q)}, k {tuple(k)} and v {tuple(v)} do not fit")
        batch, heads = ((1, 1, *q[:-2])[-2:]) if len(q) != 3 else (q[0], 1)
        return Sizes(batch, heads, heads, q[-2], keys, 0, size, v[-1], False)

    def infer(self, q: Value, k: Value, v: Value, mask: Value | None = None) -> TensorType:
        require_same_dtype(q, k, v)
        n = self.sizes(q.dims, k.dims, v.dims)
        scores = (*q.dims[:-1], n.keys)
        if mask is not None and broadcast_shapes(mask.dims, scores) != scores:
            raise InvalidModelError(f"the mask {mask.dims} does not broadcast to {scores}")
        return TensorType(q.dtype, (*q.dims[:-1], n.value_size))

    def reference(self, q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
        keys = k.astype(np.float64)
        scores = q.astype(np.float64) @ (keys.swapaxes(-1, -2) if self.keys_are_rows else keys)
        scores = scores * self.scale
        if mask is not None:
            scores = scores + mask.astype(np.float64)
        with np.errstate(all="ignore"):
            e = np.exp(scores - scores.max(-1, keepdims=True))
            weights = e / e.sum(-1, keepdims=True)
        return np.asarray(weights @ v.astype(np.float64)).astype(q.dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        q, k, v = inputs[:3]
        assert q is not None and k is not None and v is not None
        n = self.sizes(q.dims, k.dims, v.dims)
        if 3 * n.keys // 8 > MOST_ITERATIONS:
            return "the keys are too many for one invocation's loops"
        return too_deep(max(n.head_size, n.keys))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        q, k, v, mask = (*inputs, None)[:4]
        assert q is not None and k is not None and v is not None
        y = outputs[0].on_device
        if not y.span:
            return []
        n = self.sizes(q.shape, k.shape, v.shape)
        scores = scratch_tensor(ctx, (*n.scores[:3], whole_keys(n)), "scores")
        weights = scratch_tensor(ctx, scores.shape, "weights")
        steps = score(
            ctx,
            n,
            ctx.operand(q, "linear"),
            ctx.operand(k, "linear"),
            self.scale,
            scores,
            keys_are_rows=bool(self.keys_are_rows),
        )
        single = mask is not None and (not mask.shape or mask.shape[-1] == 1)
        window = Window(-1, -1, 0.0, n.keys, single, empty_is_nan=True)
        steps.append(
            masked_softmax(
                ctx, n, window, 3, scores, _in_four(ctx, mask, len(q.shape)), None, weights
            )
        )
        return steps + weigh(ctx, n, weights, ctx.operand(v, "linear"), y)

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        q, v = inputs[0], inputs[2]
        if q is None or v is None:
            return 0
        return 2 * q.known_type.size * v.dims[-2] + 2 * outputs[0].known_type.size * v.dims[-2]


def _in_four(ctx: Lowering, mask: Tensor | None, rank: int) -> Tensor | None:
    """The mask with the dimension of heads that three-dimensional operands lack."""
    if mask is None or rank != 3 or len(mask.shape) != 3:
        return mask
    view = ctx.operand(mask, "linear")
    shape = (mask.shape[0], 1, *mask.shape[1:])
    value = Value(mask.value.name, TensorType(mask.dtype, shape))
    return Tensor(value, View(view.storage, shape, view.dtype, "linear", view.offset))
