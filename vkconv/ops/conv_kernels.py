"""Lowering of convolutions: the problem, the choice of kernel, its weights, its dispatches."""

from __future__ import annotations

from collections.abc import Sequence

from vkconv.dispatch import Dispatch
from vkconv.ops.base import Lowering, Tensor
from vkconv.ops.conv_dispatch import LANE_KERNELS, conv_dispatch
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_problem import ONE, Problem
from vkconv.ops.conv_selection import select_kernel
from vkconv.ops.conv_weights import WeightFormat, packed_weights
from vkconv.ops.window import Axis
from vkconv.ops.winograd import lower_winograd


def lower_conv(
    ctx: Lowering,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    axes: Sequence[Axis],
    groups: int,
    epilogue: Epilogue,
    *,
    transposed: bool = False,
) -> list[Dispatch]:
    """A convolution in C4 with weights (M, C/group, kernel...), or (C, M/group, kernel...) when
    ``transposed``; those that the model computes are packed by a dispatch of their own."""
    if 0 in y.shape:
        return []
    axis_z, axis_y, axis_x = (ONE,) * (3 - len(axes)) + tuple(axes)
    problem = Problem(
        y.shape[0],
        groups,
        x.shape[1] // groups,
        y.shape[1] // groups,
        axis_y,
        axis_x,
        transposed,
        axis_z,
        constant=weight.array is not None and (bias is None or bias.array is not None),
    )
    choice = select_kernel(problem, ctx.caps, ctx.choices)
    if choice.is_winograd:
        return lower_winograd(ctx, x, weight, bias, y, problem, choice, epilogue)
    tile = 0 if choice.kernel in LANE_KERNELS else choice.output_tile
    weights, steps = packed_weights(ctx, weight, bias, WeightFormat(groups, tile, transposed))
    buffers = {
        "x": ctx.operand(x, "c4"),
        "weights": weights,
        "residual": epilogue.view(ctx),
        "y": y.on_device,
    }
    return [*steps, conv_dispatch(ctx, problem, choice, buffers, epilogue, y.shape[1])]
