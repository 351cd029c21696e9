"""Dispatches of a 2-D deformable convolution: the positions of all taps, then the convolution.

Positions are computed once for each (pixel, offset group, tap), in a pass of their own: all input
channels of an offset group and all output channels share them. Sampling and multiplication are one
kernel; samples are never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ops.base import Lowering, Tensor, ceil_div
from vkconv.ops.conv_selection import SHUFFLE_LANES
from vkconv.ops.conv_weights import WeightFormat, packed_weights
from vkconv.ops.grids import spread
from vkconv.ops.window import Axis


@dataclass(frozen=True)
class DeformTile:
    """What one invocation of deform_conv2d.comp computes: output channels and pixels."""

    outputs: int
    pixels: int
    lanes: int
    shuffle: bool


def select_tile(out_channels: int, caps: DeviceCaps) -> DeformTile:
    """A sample costs four loads, so it should serve many output channels: on lavapipe 32 at 4
    pixels take 0.73 of the time of 16 at 4, and 64 at 4 take 0.60 (64 channels, 3x3). Elsewhere as
    many sums as mobile GPUs keep in registers."""
    cpu = caps.kind == "cpu"
    size = min(8 if cpu else 64, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    outputs = 64 if cpu else 16
    while outputs > 4 and outputs // 2 >= out_channels:
        outputs //= 2
    shuffle = cpu and caps.subgroup_shuffle and caps.subgroup_size >= SHUFFLE_LANES and outputs >= 8
    shuffle = shuffle and size % caps.subgroup_size == 0
    return DeformTile(outputs, 4 if cpu or outputs < 16 else 2, size, shuffle)


def lower_deform_conv(
    ctx: Lowering,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    y: Tensor,
    axes: Sequence[Axis],
    groups: int,
    offset_groups: int,
) -> list[Dispatch]:
    """x, offset, mask and y are C4."""
    if 0 in y.shape:
        return []
    n, channels = x.shape[:2]
    in_channels, out_channels = channels // groups, y.shape[1] // groups
    axis_y, axis_x = axes
    taps, pixels = axis_y.kernel * axis_x.kernel, axis_y.out * axis_x.out
    whole = all(
        count == 1 or size % 4 == 0
        for count, size in (
            (groups, in_channels),
            (groups, out_channels),
            (offset_groups, channels // offset_groups),
        )
    )
    positions = ctx.scratch(n * offset_groups * taps * pixels * 4, "positions")
    steps = [_positions(ctx, offset, mask, positions, axes, offset_groups * taps)]
    tile = select_tile(out_channels, ctx.caps)
    form = WeightFormat(groups, tile.outputs if whole else 0)
    weights, packing = packed_weights(ctx, weight, bias, form)
    buffers: dict[str, View | None] = {
        "x": ctx.operand(x, "c4"),
        "weights": weights,
        "positions": positions,
        "y": y.on_device,
    }
    push = {
        "height": axis_y.size,
        "width": axis_x.size,
        "pixels": pixels,
        "taps": taps,
        "pairs": offset_groups * taps,
        "channels": y.shape[1],
    }
    if not whole:
        push |= {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "part_channels": channels // offset_groups,
            "batches": n,
        }
        where = spread(ctx.caps, pixels, ceil_div(y.shape[1], 4), n)
        return [
            *packing,
            *steps,
            ctx.dispatch("grouped_deform_conv2d", buffers, push, where.spec, where.count),
        ]
    tiles = ceil_div(out_channels, tile.outputs)
    push |= {
        "in_blocks": ceil_div(in_channels, 4),
        "out_blocks": ceil_div(out_channels, 4),
        "tiles": tiles,
        "part_blocks": ceil_div(channels // offset_groups, 4),
    }
    spec = {
        "local_size_x": tile.lanes,
        "OUTPUT_TILE": tile.outputs,
        "PIXELS": tile.pixels,
        "MASKED": int(y.shape[1] % 4 != 0),
    }
    grid = (ceil_div(pixels, tile.lanes * tile.pixels), groups * tiles, n)
    shuffle = "on" if tile.shuffle else "off"
    return [
        *packing,
        *steps,
        ctx.dispatch("deform_conv2d", buffers, push, spec, grid, shuffle=shuffle),
    ]


def _positions(
    ctx: Lowering,
    offset: Tensor,
    mask: Tensor | None,
    positions: View,
    axes: Sequence[Axis],
    pairs: int,
) -> Dispatch:
    n, _, _, _ = c4_dims(offset.shape)
    axis_y, axis_x = axes
    pixels = axis_y.out * axis_x.out
    where = spread(ctx.caps, pixels, pairs, n)
    return ctx.dispatch(
        "deform_positions",
        {
            "offsets": ctx.operand(offset, "c4"),
            "mask": None if mask is None else ctx.operand(mask, "c4"),
            "y": positions,
        },
        {
            "batches": n,
            "pairs": pairs,
            "kernel": [axis_y.kernel, axis_x.kernel],
            "in_size": [axis_y.size, axis_x.size],
            "out_size": [axis_y.out, axis_x.out],
            "stride": [axis_y.stride, axis_x.stride],
            "dilation": [axis_y.dilation, axis_x.dilation],
            "pad": [axis_y.begin, axis_x.begin],
        },
        {**where.spec, "MODULATED": int(mask is not None)},
        where.count,
    )
