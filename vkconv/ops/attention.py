"""Attention: scaled dot products of queries and keys, softmax, and the mean of values they
weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.attention_kernels import Window, lower_attention
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matmul import too_deep
from vkconv.ops.operator import FLOATS, Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.shapes import broadcast_shapes


@dataclass(frozen=True)
class Sizes:
    """What the inputs' shapes say. ``flat``: heads lie beside each other in the last dimension (3-D
    inputs)."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    past: int
    head_size: int
    value_size: int
    flat: bool

    @property
    def total_keys(self) -> int:
        return self.past + self.keys

    @property
    def scores(self) -> tuple[int, int, int, int]:
        return self.batch, self.heads, self.queries, self.total_keys


@operator("Attention", since=(23, 24, 25))
class Attention(Operator):
    """y = softmax(softcap(scale q k^T) + bias) v per head; groups of query heads share a key and
    value head.

    q (B, H, S, D) or (B, S, H D), k and v likewise with H_kv heads and T positions, past ones
    before them. bias: of the mask (false: -infinity), of the causal frontier j <= i + past, of a
    window around i + past, of the lengths. A query that no key takes part in gives zeros. Outputs:
    y, keys and values with the past, the scores of a stage.
    """

    linear_inputs: ClassVar[frozenset[int]] = frozenset({3, 6})
    is_causal: int = 0
    kv_num_heads: int | None = None
    q_num_heads: int | None = None
    qk_matmul_output_mode: int = 0
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: int | None = None
    left_window_size: int = -1
    right_window_size: int = -1

    def sizes(
        self, q: Sequence[int], k: Sequence[int], v: Sequence[int], past: Sequence[int] | None
    ) -> Sizes:
        if not len(q) == len(k) == len(v) or len(q) not in (3, 4):
            raise InvalidModelError(
                f"shapes {q}, {k} and {v} of q, k and v are not all 3-D or all 4-D"
            )
        flat = len(q) == 3
        if flat:
            heads, kv_heads = self.q_num_heads or 0, self.kv_num_heads or 0
            if heads < 1 or kv_heads < 1:
                raise InvalidModelError(
                    "3-D inputs need the attributes q_num_heads and kv_num_heads"
                )
            if q[2] % heads or k[2] % kv_heads or v[2] % kv_heads:
                raise InvalidModelError(
                    f"hidden sizes {q[2]}, {k[2]}, {v[2]} do not divide into heads"
                )
            q = (q[0], heads, q[1], q[2] // heads)
            k = (k[0], kv_heads, k[1], k[2] // kv_heads)
            v = (v[0], kv_heads, v[1], v[2] // kv_heads)
        if q[0] != k[0] or k[:3] != v[:3] or q[3] != k[3] or k[1] < 1 or q[1] % k[1]:
            raise InvalidModelError(
                f"q {tuple(q)}, k {tuple(k)} and v {tuple(v)} do not fit each other"
            )
        return Sizes(q[0], q[1], k[1], q[2], k[2], past[2] if past else 0, q[3], v[3], flat)

    def infer(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None = None,
        past_key: Value | None = None,
        past_value: Value | None = None,
        lengths: Value | None = None,
    ) -> tuple[TensorType, ...]:
        if (past_key is None) != (past_value is None):
            raise InvalidModelError("past_key and past_value go together")
        if past_key is not None and lengths is not None:
            raise InvalidModelError("nonpad_kv_seqlen goes with no past_key")
        if self.qk_matmul_output_mode not in (0, 1, 2, 3):
            raise InvalidModelError(f"qk_matmul_output_mode is {self.qk_matmul_output_mode}")
        n = self.sizes(q.dims, k.dims, v.dims, None if past_key is None else past_key.dims)
        for value, size in ((past_key, n.head_size), (past_value, n.value_size)):
            if value is not None and value.dims != (n.batch, n.kv_heads, n.past, size):
                raise InvalidModelError(f"'{value.name}' has shape {value.dims}")
        if lengths is not None and lengths.dims != (n.batch,):
            raise InvalidModelError(
                f"nonpad_kv_seqlen has shape {lengths.dims}, expected ({n.batch},)"
            )
        if mask is not None:
            self._check_mask(mask.dims, n)
        y: tuple[int, ...] = (n.batch, n.heads, n.queries, n.value_size)
        if n.flat:
            y = (n.batch, n.queries, n.heads * n.value_size)
        return (
            TensorType(q.dtype, y),
            TensorType(k.dtype, (n.batch, n.kv_heads, n.total_keys, n.head_size)),
            TensorType(v.dtype, (n.batch, n.kv_heads, n.total_keys, n.value_size)),
            TensorType(q.dtype, n.scores),
        )

    def _check_mask(self, shape: Sequence[int], n: Sizes) -> None:
        # since version 24 the mask may have fewer keys, the others then take no part
        shorter = self.version >= 24 and shape and shape[-1] <= n.total_keys
        shown = (*shape[:-1], n.total_keys) if shorter else tuple(shape)
        if broadcast_shapes(shown, n.scores) != n.scores:
            raise InvalidModelError(
                f"the mask's shape {tuple(shape)} does not broadcast to {n.scores}"
            )

    def mask_keys(self, shape: Sequence[int], n: Sizes) -> tuple[int, bool]:
        """How many keys the mask speaks of, and whether it has one element for all of them."""
        last = shape[-1] if shape else 1
        return (n.total_keys, True) if last == 1 and self.version < 24 else (last, False)

    def reference(
        self,
        q: Array,
        k: Array,
        v: Array,
        mask: Array | None = None,
        past_key: Array | None = None,
        past_value: Array | None = None,
        lengths: Array | None = None,
    ) -> tuple[Array, ...]:
        n = self.sizes(q.shape, k.shape, v.shape, None if past_key is None else past_key.shape)
        if n.flat:
            k, v = (
                x.reshape(n.batch, n.keys, n.kv_heads, x.shape[2] // n.kv_heads).transpose(
                    0, 2, 1, 3
                )
                for x in (k, v)
            )
            q_heads = q.reshape(n.batch, n.queries, n.heads, n.head_size).transpose(0, 2, 1, 3)
        else:
            q_heads = q
        if past_key is not None and past_value is not None:
            k, v = np.concatenate((past_key, k), 2), np.concatenate((past_value, v), 2)
        share = n.heads // n.kv_heads
        keys, values = (np.repeat(x.astype(np.float64), share, 1) for x in (k, v))
        scores = q_heads.astype(np.float64) @ keys.swapaxes(2, 3) * self.factor(n.head_size)
        capped = self.softcap * np.tanh(scores / self.softcap) if self.softcap > 0 else scores
        bias = self._bias(n, mask, lengths)
        biased = np.where(np.isneginf(bias), -np.inf, capped + bias)
        weights = np.zeros_like(biased)
        some = ~np.isneginf(bias).all(3)
        rows = biased[some]
        if rows.size:
            e = np.exp(rows - rows.max(1, keepdims=True))
            weights[some] = e / e.sum(1, keepdims=True)
        y = weights @ values
        if n.flat:
            y = y.transpose(0, 2, 1, 3).reshape(n.batch, n.queries, n.heads * n.value_size)
        stage = (scores, capped, biased, weights)[self.qk_matmul_output_mode]
        return (y.astype(q.dtype), k, v, stage.astype(q.dtype))[: self.output_count]

    def _bias(self, n: Sizes, mask: Array | None, lengths: Array | None) -> Array:
        bias: Array = np.zeros(n.scores)
        if mask is not None:
            count, single = self.mask_keys(mask.shape, n)
            full = np.broadcast_to(mask, (*mask.shape[:-1], count)) if single else mask
            added = np.where(full, 0.0, -np.inf) if mask.dtype == bool else full.astype(np.float64)
            bias[..., :count] += added
            bias[..., count:] = -np.inf
        j = np.arange(n.total_keys)
        past = np.full(n.batch, n.past) if lengths is None else lengths - n.queries
        own = (np.arange(n.queries) + past[:, None])[:, None, :, None]
        left, right = self.window()
        outside = np.zeros(n.scores, bool)
        if left >= 0:
            outside |= j < own - left
        if right >= 0:
            outside |= j > own + right
        if lengths is not None:
            outside |= j >= lengths[:, None, None, None]
        bias[outside] = -np.inf
        return bias

    def factor(self, head_size: int) -> float:
        return 1 / sqrt(head_size) if self.scale is None else self.scale

    def window(self) -> tuple[int, int]:
        """Keys to the left and to the right of a query's position that take part; -1: all."""
        right = self.right_window_size
        if self.is_causal:
            right = 0
        return self.left_window_size, right

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        q, k, v, mask, past = (*inputs, None, None)[:5]
        assert q is not None and k is not None and v is not None
        if mask is not None and mask.dtype not in FLOATS | {"bool"}:
            return f"no kernel for a mask of {mask.dtype}"
        n = self.sizes(q.dims, k.dims, v.dims, None if past is None else past.dims)
        if 3 * n.total_keys // 8 > MOST_ITERATIONS:
            return "the keys are too many for one invocation's loops"
        return too_deep(max(n.head_size, n.total_keys))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        q, k, v, mask, past = (*inputs, None, None)[:5]
        assert q is not None and k is not None and v is not None
        n = self.sizes(q.shape, k.shape, v.shape, None if past is None else past.shape)
        left, right = self.window()
        count, single = (0, False) if mask is None else self.mask_keys(mask.shape, n)
        window = Window(left, right, self.softcap, count, single)
        mode = self.qk_matmul_output_mode
        return lower_attention(ctx, n, self.factor(n.head_size), window, mode, inputs, outputs)
