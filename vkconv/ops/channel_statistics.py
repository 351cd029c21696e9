"""Normalisation of feature maps by the statistics of groups of channels: three dispatches, C4 or
linear.

Moments of chunks of channels (``channel_moments``), merged per group and combined with scale and
bias (``group_moments``), then applied (``normalize_channels``). Groups may begin anywhere in a
channel block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod

from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ops.base import Lowering, ceil_div
from vkconv.ops.grids import spread
from vkconv.ops.reduction_kernels import MOST_ITERATIONS, lanes_per_row

#: pixels of a channel that one workgroup takes
_CHUNK = 4096


class Affine(IntEnum):
    """``AFFINE_<name>`` of ``shaders/group_moments.comp`` (a test compares the two)."""

    NONE = 0
    PER_CHANNEL = 1
    PER_GROUP = 2


@dataclass(frozen=True)
class Statistics:
    """What is normalised together, and how.

    ``groups`` of channels per batch element, or (``merged``) of the whole batch. y = (x - mean) *
    scale / sqrt(variance + epsilon) + bias; ``epsilon_outside``: / (sqrt(variance) + epsilon).
    """

    groups: int
    epsilon: float
    merged: bool = False
    epsilon_outside: bool = False
    affine: Affine = Affine.NONE
    scale: View | None = None
    bias: View | None = None


def too_many(shape: tuple[int, ...], groups: int, merged: bool) -> str | None:
    """Why the kernels can't take groups of this size, or None."""
    items = ceil_div(prod(shape[2:]), _CHUNK) * (shape[1] // groups) * (shape[0] if merged else 1)
    return (
        "its groups are too large for one invocation's loops"
        if 2 * items // 8 > MOST_ITERATIONS
        else None
    )


def normalize_groups(ctx: Lowering, x: View, y: View, how: Statistics) -> list[Dispatch]:
    """Dispatches of y = x normalised; both (N, C, ...) and of one layout."""
    channels = y.shape[1]
    if y.layout == "c4":
        n, blocks, h, w = c4_dims(y.shape)
        pixels, block, dense_batch = h * w, 4, 0
        axes = {"width": "vec4"}
    else:
        n, blocks, pixels, block = y.shape[0], channels, prod(y.shape[2:]), 1
        dense_batch = channels * pixels
        axes = {"width": "scalar", "access": "ssbo"}
    if n * channels * pixels == 0:
        return []
    chunks = ceil_div(pixels, _CHUNK)
    length = ceil_div(pixels, chunks)
    chunks = ceil_div(pixels, length)
    moments = ctx.scratch(n * blocks * block * chunks * 2, "moments")
    table = ctx.scratch(n * blocks * block * 3, "table")
    grid = spread(ctx.caps, pixels, blocks, n)
    return [
        ctx.dispatch(
            "channel_moments",
            {"x": x, "moments": moments},
            {
                "batches": n,
                "channels": blocks,
                "pixels": pixels,
                "dense_batch": dense_batch,
                "chunks": chunks,
                "chunk_length": length,
            },
            {
                **spread(ctx.caps, chunks, blocks, n, size=1).spec,
                "local_size_x": lanes_per_row(ctx.caps, length),
            },
            spread(ctx.caps, chunks, blocks, n, size=1).count,
            **axes,
        ),
        _merge(ctx, moments, table, how, (n, channels, pixels), block, chunks, length),
        ctx.dispatch(
            "normalize_channels",
            {"x": x, "table": table, "y": y},
            {
                "batches": n,
                "channels": blocks,
                "last": channels - (blocks - 1) * block,
                "pixels": pixels,
                "dense_batch": dense_batch,
            },
            grid.spec,
            grid.count,
            **axes,
        ),
    ]


def _merge(
    ctx: Lowering,
    moments: View,
    table: View,
    how: Statistics,
    sizes: tuple[int, int, int],
    block: int,
    chunks: int,
    length: int,
) -> Dispatch:
    n, channels, pixels = sizes
    grid = spread(ctx.caps, how.groups, 1 if how.merged else n, size=1)
    push: dict[str, int | float] = {
        "batches": n,
        "channels": channels,
        "groups": how.groups,
        "block": block,
        "pixels": pixels,
        "chunks": chunks,
        "chunk_length": length,
        "epsilon": how.epsilon,
    }
    return ctx.dispatch(
        "group_moments",
        {"moments": moments, "scale": how.scale, "bias": how.bias, "table": table},
        push,
        {
            **grid.spec,
            "local_size_x": lanes_per_row(ctx.caps, channels // how.groups * chunks),
            "affine": int(how.affine),
            "merged": int(how.merged),
            "epsilon_outside": int(how.epsilon_outside),
        },
        grid.count,
    )
