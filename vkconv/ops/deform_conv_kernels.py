"""Dispatches of a 2-D deformable convolution: the positions of all taps, then the convolution.

Positions are computed once for each (pixel, offset group, tap), in a pass of their own: all input
channels of an offset group and all output channels share them. Sampling and multiplication are one
kernel, which takes every sample anew for each of its tiles of outputs; where outputs are many the
samples are stored instead, and a 1x1 convolution multiplies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vkconv.dispatch import Dispatch, Number, PushValue, View
from vkconv.ops.activation_codes import Activation
from vkconv.ops.conv_dispatch import conv_dispatch
from vkconv.ops.conv_epilogue import RESIDUAL_BUFFERS, Epilogue
from vkconv.ops.conv_weights import WeightFormat, packed_weights
from vkconv.ops.deform_conv_problem import (
    DeformProblem,
    select_product,
    select_tile,
    stores_samples,
)
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor, c4_scratch
from vkconv.ops.shapes import ceil_div

#: channel blocks that one invocation samples
SAMPLED_DEPTH = 8


@dataclass(frozen=True)
class Operands:
    """Offsets and mask, C4, from a channel of theirs on, and what the mask's elements pass
    through."""

    offset: Tensor
    mask: Tensor | None
    offset_channel: int = 0
    mask_channel: int = 0
    activation: tuple[int, float, float] = (int(Activation.NONE), 0.0, 0.0)


def lower_deform_conv(
    ctx: Lowering,
    problem: DeformProblem,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operands: Operands,
    y: Tensor,
    epilogue: Epilogue,
) -> list[Dispatch]:
    """x, residual and y are C4."""
    if 0 in y.shape:
        return []
    positions = ctx.scratch(problem.batch * problem.pairs * problem.pixels * 4, "positions")
    steps = [_positions(ctx, problem, operands, positions)]
    source = ctx.operand(x, "c4")
    if stores_samples(problem, ctx.caps):
        samples, sampling = _samples(ctx, problem, source, positions)
        return [*steps, sampling, *_multiply(ctx, problem, samples, weight, bias, y, epilogue)]
    buffers: dict[str, View | None] = {"x": source, "positions": positions}
    residual = epilogue.view(ctx)
    if residual is not None and ctx.caps.max_storage_buffers < RESIDUAL_BUFFERS:
        sums = c4_scratch(ctx, y.shape, "sums")
        before = epilogue.before_residual()
        steps += _convolve(ctx, problem, buffers | {"y": sums}, weight, bias, before)
        return steps + epilogue.lower_residual(ctx, sums, y.on_device)
    buffers["y"] = y.on_device
    if residual is not None:
        buffers["residual"] = residual
    return steps + _convolve(ctx, problem, buffers, weight, bias, epilogue)


def _convolve(
    ctx: Lowering,
    problem: DeformProblem,
    buffers: Mapping[str, View | None],
    weight: Tensor,
    bias: Tensor | None,
    epilogue: Epilogue,
) -> list[Dispatch]:
    """Samples taken and multiplied by one kernel; one that looks every channel up by itself where
    groups are no whole blocks."""
    whole, channels = problem.has_whole_blocks, problem.out_channels
    tile = select_tile(problem.group_out, ctx.caps)
    form = WeightFormat(problem.groups, tile.outputs if whole else 0)
    weights, steps = packed_weights(ctx, weight, bias, form)
    bound = {**buffers, "weights": weights}
    push: dict[str, PushValue] = {
        "height": problem.y.size,
        "width": problem.x.size,
        "pixels": problem.pixels,
        "taps": problem.taps,
        "pairs": problem.pairs,
        **epilogue.push(channels),
    }
    residual = "on" if "residual" in buffers else "off"
    if not whole:
        push |= {
            "in_channels": problem.group_in,
            "out_channels": problem.group_out,
            "part_channels": problem.part_channels,
            "batches": problem.batch,
        }
        where = spread(ctx.caps, problem.pixels, ceil_div(channels, 4), problem.batch)
        spec = where.spec | epilogue.spec(channels)
        return [
            *steps,
            ctx.dispatch(
                "grouped_deform_conv2d", bound, push, spec, where.count, residual=residual
            ),
        ]
    tiles = ceil_div(problem.group_out, tile.outputs)
    push |= {
        "in_blocks": ceil_div(problem.group_in, 4),
        "out_blocks": ceil_div(problem.group_out, 4),
        "tiles": tiles,
        "part_blocks": ceil_div(problem.part_channels, 4),
    }
    tiling: dict[str, Number] = {
        "local_size_x": tile.lanes,
        "OUTPUT_TILE": tile.outputs,
        "PIXELS": tile.pixels,
        **epilogue.spec(channels),
    }
    columns = ceil_div(problem.pixels, tile.lanes * tile.pixels)
    grid = (columns, problem.groups * tiles, problem.batch)
    axes = {"shuffle": "on" if tile.shuffle else "off", "residual": residual}
    return [*steps, ctx.dispatch("deform_conv2d", bound, push, tiling, grid, **axes)]


def _samples(
    ctx: Lowering, problem: DeformProblem, x: View, positions: View
) -> tuple[View, Dispatch]:
    """Every sample: [n][block][tap][pixel] of vec4, a map of taps times as many channels."""
    blocks, part_blocks = ceil_div(problem.channels, 4), ceil_div(problem.part_channels, 4)
    shape = (problem.batch, 4 * blocks * problem.taps, problem.y.out, problem.x.out)
    samples = c4_scratch(ctx, shape, "samples")
    pieces = problem.offset_groups * ceil_div(part_blocks, SAMPLED_DEPTH)
    places = problem.taps * problem.pixels
    where = spread(ctx.caps, places, pieces, problem.batch)
    return samples, ctx.dispatch(
        "deform_samples",
        {"x": x, "positions": positions, "y": samples},
        {
            "batches": problem.batch,
            "parts": problem.offset_groups,
            "blocks": blocks,
            "part_blocks": part_blocks,
            "height": problem.y.size,
            "width": problem.x.size,
            "places": places,
        },
        {**where.spec, "DEPTH": SAMPLED_DEPTH},
        where.count,
    )


def _multiply(
    ctx: Lowering,
    problem: DeformProblem,
    samples: View,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    epilogue: Epilogue,
) -> list[Dispatch]:
    """The 1x1 convolution of the samples: weights packed for a kernel of all taps are in its
    order."""
    known = weight.array is not None and (bias is None or bias.array is not None)
    product, choice = select_product(problem, ctx.caps, ctx.choices, constant=known)
    form = WeightFormat(problem.groups, choice.output_tile)
    weights, steps = packed_weights(ctx, weight, bias, form)
    buffers = {
        "x": samples,
        "weights": weights,
        "residual": epilogue.view(ctx),
        "y": y.on_device,
    }
    return [*steps, conv_dispatch(ctx, product, choice, buffers, epilogue, y.shape[1])]


def _positions(
    ctx: Lowering,
    problem: DeformProblem,
    operands: Operands,
    positions: View,
) -> Dispatch:
    offset, mask = operands.offset, operands.mask
    activation, alpha, beta = operands.activation
    axis_y, axis_x = problem.y, problem.x
    where = spread(ctx.caps, problem.pixels, problem.pairs, problem.batch)
    return ctx.dispatch(
        "deform_positions",
        {
            "offsets": ctx.operand(offset, "c4"),
            "mask": None if mask is None else ctx.operand(mask, "c4"),
            "y": positions,
        },
        {
            "batches": problem.batch,
            "pairs": problem.pairs,
            "offset_channel": operands.offset_channel,
            "mask_channel": operands.mask_channel,
            "alpha": alpha,
            "beta": beta,
            "kernel": [axis_y.kernel, axis_x.kernel],
            "in_size": [axis_y.size, axis_x.size],
            "out_size": [axis_y.out, axis_x.out],
            "stride": [axis_y.stride, axis_x.stride],
            "dilation": [axis_y.dilation, axis_x.dilation],
            "pad": [axis_y.begin, axis_x.begin],
        },
        {
            **where.spec,
            "MODULATED": int(mask is not None),
            "EVEN": int(operands.offset_channel % 2 == 0),
            "ACTIVATION": activation,
        },
        where.count,
    )
