"""Normalisation of feature maps by the statistics of groups of channels, C4 or linear.

One dispatch (``normalize_groups``) where a workgroup can take a group: C4, groups of whole channel
blocks or of 1 or 2 channels, enough of them for the device or small ones. Else three: moments of
chunks of channels (``channel_moments``), merged per group and combined with scale and bias
(``group_moments``), then applied (``normalize_channels``); groups may begin anywhere in a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ops.activation_codes import Activation
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.shapes import ceil_div
from vkconv.ops.shared_rows import lanes_per_row

#: pixels of a channel that one workgroup takes
_CHUNK = 4096
#: units that keep a CPU driver's threads busy, and the vec4s of one that a thread does alone faster
#: than two more dispatches begin
_CPU_UNITS, _CPU_LENGTH = 4, 8192
#: invocations that keep a GPU busy, and turns of a loop that pay for two barriers saved
_GPU_INVOCATIONS, _GPU_TURNS = 2048, 16
#: lanes that share a group in ``normalize_groups`` at most
_GROUP_LANES = 256


class Affine(IntEnum):
    """``AFFINE_<name>`` of ``shaders/include/affine_codes.glsl`` (a test compares the two)."""

    NONE = 0
    PER_CHANNEL = 1
    PER_GROUP = 2


@dataclass(frozen=True)
class Statistics:
    """What is normalised together, and how.

    ``groups`` of channels per batch element, or (``merged``) of the whole batch. y = (x - mean) *
    scale / sqrt(variance + epsilon) + bias; ``epsilon_outside``: / (sqrt(variance) + epsilon).
    ``activation``: code, alpha and beta of what y passes through.
    """

    groups: int
    epsilon: float
    merged: bool = False
    epsilon_outside: bool = False
    affine: Affine = Affine.NONE
    scale: View | None = None
    bias: View | None = None
    activation: tuple[Activation, float, float] = (Activation.NONE, 0.0, 0.0)


@dataclass(frozen=True)
class Units:
    """What the workgroups of ``normalize_groups`` take: ``count`` units per batch element, each of
    ``blocks`` channel blocks in which ``width`` lanes belong to one group; ``lanes`` share one."""

    count: int
    blocks: int
    width: int
    lanes: int


def select_units(
    caps: DeviceCaps, shape: tuple[int, ...], groups: int, merged: bool
) -> Units | None:
    """How one dispatch normalises a C4 map of ``shape``; None where three do it better."""
    n, blocks, h, w = c4_dims(shape)
    size = shape[1] // groups
    if merged or not (size in (1, 2) or size % 4 == 0):
        return None
    unit_blocks = max(size // 4, 1)
    count, length = blocks // unit_blocks, unit_blocks * h * w
    limit = min(_GROUP_LANES, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    if caps.kind == "cpu":
        # a workgroup is one thread: groups keep it busy, or are so small that more dispatches cost
        # more than one thread's work (measured: docs/decisions/0013)
        limit, enough = 8, n * count >= _CPU_UNITS or length <= _CPU_LENGTH
    else:
        enough = n * count * limit >= _GPU_INVOCATIONS or length <= _GPU_TURNS * limit
    lanes = 8
    while lanes * 2 <= min(limit, length):
        lanes *= 2
    if not enough or 3 * ceil_div(length, lanes) > MOST_ITERATIONS:
        return None
    return Units(count, unit_blocks, min(size, 4), lanes)


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
    units = None
    if y.layout == "c4" and y.span:
        units = select_units(ctx.caps, y.shape, how.groups, how.merged)
    if units is not None:
        return [_normalize_units(ctx, x, y, how, units)]
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
                "alpha": how.activation[1],
                "beta": how.activation[2],
            },
            {**grid.spec, "ACTIVATION": int(how.activation[0])},
            grid.count,
            **axes,
        ),
    ]


def _normalize_units(ctx: Lowering, x: View, y: View, how: Statistics, units: Units) -> Dispatch:
    n, _, h, w = c4_dims(y.shape)
    channels = y.shape[1]
    grid = spread(ctx.caps, 1, units.count, n, size=units.lanes)
    kind, alpha, beta = how.activation
    return ctx.dispatch(
        "normalize_groups",
        {"x": x, "scale": how.scale, "bias": how.bias, "y": y},
        {
            "batches": n,
            "channels": channels,
            "groups": how.groups,
            "units": units.count,
            "unit_blocks": units.blocks,
            "pixels": h * w,
            "epsilon": how.epsilon,
            "alpha": alpha,
            "beta": beta,
        },
        {
            **grid.spec,
            "affine": int(how.affine),
            "width": units.width,
            "epsilon_outside": int(how.epsilon_outside),
            "ACTIVATION": int(kind),
            "MASKED": int(channels % 4 != 0),
        },
        grid.count,
    )


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
