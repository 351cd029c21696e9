"""Lowering of convolutions: the problem, the choice of kernel, its weights, its dispatches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch
from vkconv.ops.binary import lower_binary
from vkconv.ops.binary_codes import Binary
from vkconv.ops.conv_dispatch import LANE_KERNELS, SCALING, STORING_LINEAR, conv_dispatch
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_problem import ONE, Choice, Problem
from vkconv.ops.conv_selection import select_kernel
from vkconv.ops.conv_weights import WeightFormat, packed_weights
from vkconv.ops.lowering import Lowering, Tensor, c4_scratch
from vkconv.ops.to_c4 import lower_to_linear
from vkconv.ops.window import Axis
from vkconv.ops.winograd import lower_winograd

#: storage buffers of a convolution with scale; Vulkan guarantees four
SCALED_BUFFERS = 5


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
    scale: Tensor | None = None,
) -> list[Dispatch]:
    """A convolution in C4 with weights (M, C/group, kernel...), or (C, M/group, kernel...) when
    ``transposed``; those that the model computes are packed by a dispatch of their own.

    scale (N, C, 1...), C4: factors of x. Where the kernel has no place for them, or the device too
    few bindings, x is multiplied by a dispatch of its own; where y is linear and the kernel stores
    C4 alone, y is converted by one.
    """
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
    if scale is not None and not _takes_scale(choice, ctx.caps):
        x, before = _multiplied(ctx, x, scale)
        after = lower_conv(ctx, x, weight, bias, y, axes, groups, epilogue, transposed=transposed)
        return [*before, *after]
    result = y.on_device.layout
    if result == "linear" and not (choice.is_winograd or choice.kernel in STORING_LINEAR):
        stored = Tensor(y.value, c4_scratch(ctx, y.shape, "result in C4"))
        steps = lower_conv(
            ctx, x, weight, bias, stored, axes, groups, epilogue, transposed=transposed, scale=scale
        )
        return [*steps, *lower_to_linear(ctx, stored.on_device, y.on_device)]
    epilogue = replace(epilogue, result=result)
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
    if scale is not None:
        buffers["scale"] = ctx.operand(scale, "c4")
    return [*steps, conv_dispatch(ctx, problem, choice, buffers, epilogue, y.shape[1])]


def _takes_scale(choice: Choice, caps: DeviceCaps) -> bool:
    return choice.kernel in SCALING and caps.max_storage_buffers >= SCALED_BUFFERS


def _multiplied(ctx: Lowering, x: Tensor, scale: Tensor) -> tuple[Tensor, list[Dispatch]]:
    """x * scale in memory of its own, and the dispatch that writes it."""
    view = c4_scratch(ctx, x.shape, "scaled input")
    a, b = (ctx.operand(tensor, "c4") for tensor in (x, scale))
    return Tensor(x.value, view), lower_binary(ctx, Binary.MUL, a, b, view)
