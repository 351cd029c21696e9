"""RotaryEmbedding: positions as rotations of pairs of elements (Su et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator


@dataclass(frozen=True)
class Heads:
    """Sizes of x; ``flat``: (batch, positions, heads * head_size), else (batch, heads, positions,
    head_size)."""

    batch: int
    heads: int
    positions: int
    head_size: int
    pairs: int
    flat: bool


@operator("RotaryEmbedding", since=(23,))
class RotaryEmbedding(Operator):
    """Pairs (x1, x2) of each head become (cos x1 - sin x2, sin x1 + cos x2), angles by position.

    The first ``rotary_embedding_dim`` elements (0: all) are halves, or interleaved pairs; the rest
    stays. The caches are (batch, positions, pairs), or (any, pairs) with position_ids (batch,
    positions) that choose rows.
    """

    linear_inputs: ClassVar[frozenset[int]] = frozenset({3})
    interleaved: int = 0
    num_heads: int = 0
    rotary_embedding_dim: int = 0

    def heads(self, shape: Sequence[int]) -> Heads:
        if len(shape) not in (3, 4):
            raise InvalidModelError(f"the input has {len(shape)} dimensions, expected 3 or 4")
        flat = len(shape) == 3
        if flat and (self.num_heads < 1 or shape[2] % self.num_heads):
            raise InvalidModelError(
                f"{shape[2]} elements do not divide into {self.num_heads} heads"
            )
        heads = self.num_heads if flat else shape[1]
        size = shape[2] // heads if flat else shape[3]
        rotated = self.rotary_embedding_dim or size
        if rotated % 2 or not 0 < rotated <= size:
            raise InvalidModelError(f"{rotated} of {size} elements of a head can't be pairs")
        return Heads(shape[0], heads, shape[1] if flat else shape[2], size, rotated // 2, flat)

    def infer(
        self, x: Value, cosine: Value, sine: Value, position_ids: Value | None = None
    ) -> TensorType:
        n = self.heads(x.dims)
        for cache in (cosine, sine):
            fits = (
                len(cache.dims) == 2
                if position_ids is not None
                else cache.dims[:-1] == (n.batch, n.positions)
            )
            if not fits or cache.dims[-1] != n.pairs or not cache.dims[0]:
                raise InvalidModelError(f"'{cache.name}' has shape {cache.dims} for {n}")
        if position_ids is not None and position_ids.dims != (n.batch, n.positions):
            raise InvalidModelError(f"position_ids has shape {position_ids.dims}")
        return x.known_type

    def reference(
        self, x: Array, cosine: Array, sine: Array, position_ids: Array | None = None
    ) -> Array:
        n = self.heads(x.shape)
        wide = x.astype(np.float64)
        if n.flat:
            wide = wide.reshape(n.batch, n.positions, n.heads, n.head_size).swapaxes(1, 2)
        if position_ids is not None:
            cosine, sine = cosine[position_ids], sine[position_ids]
        c, s = (cache.astype(np.float64)[:, None] for cache in (cosine, sine))
        y: Array = wide.copy()
        end = 2 * n.pairs
        first = slice(0, end, 2) if self.interleaved else slice(0, n.pairs)
        second = slice(1, end, 2) if self.interleaved else slice(n.pairs, end)
        y[..., first] = c * wide[..., first] - s * wide[..., second]
        y[..., second] = s * wide[..., first] + c * wide[..., second]
        return (y.swapaxes(1, 2) if n.flat else y).reshape(x.shape).astype(x.dtype)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, cosine, sine, position_ids = (*inputs, None)[:4]
        assert x is not None and cosine is not None and sine is not None
        y = outputs[0].on_device
        if not y.span:
            return []
        n = self.heads(x.shape)
        steps: list[Dispatch] = []
        size = n.head_size
        grid = spread(ctx.caps, n.positions * size, n.heads, n.batch)
        steps_of_x = (size, n.heads * size) if n.flat else (n.positions * size, size)
        push: dict[str, int] = {
            "batches": n.batch,
            "heads": n.heads,
            "positions": n.positions,
            "head_size": size,
            "pairs": n.pairs,
            "batch_step": n.positions * n.heads * size,
            "head_step": steps_of_x[0],
            "position_step": steps_of_x[1],
        }
        views = {
            "x": ctx.operand(x, "linear"),
            "cosine": self._angles(ctx, cosine, position_ids, n, steps),
            "sine": self._angles(ctx, sine, position_ids, n, steps),
            "y": y,
        }
        spec = {**grid.spec, "interleaved": int(bool(self.interleaved))}
        return [*steps, ctx.dispatch("rotary_embedding", views, push, spec, grid.count)]

    def _angles(
        self,
        ctx: Lowering,
        cache: Tensor,
        position_ids: Tensor | None,
        n: Heads,
        steps: list[Dispatch],
    ) -> View:
        """The cache by position; its rows chosen by position_ids, which the kernel clamps."""
        source = ctx.operand(cache, "linear")
        if position_ids is None:
            return source
        count = prod(position_ids.shape)
        y = ctx.scratch(count * n.pairs, f"{cache.value.name} by position")
        grid = spread(ctx.caps, count * n.pairs)
        steps.append(
            ctx.dispatch(
                "gather",
                {"x": source, "indices": ctx.operand(position_ids, "linear"), "y": y},
                {"outer": 1, "axis_size": cache.shape[0], "count": count, "inner": n.pairs},
                {**grid.spec, "inner_is_one": int(n.pairs == 1)},
                grid.count,
            )
        )
        return y
