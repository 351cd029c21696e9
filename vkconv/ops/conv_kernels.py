"""Kernels of the convolution family: from a shape and a choice of kernel to the dispatch."""

from __future__ import annotations

from collections.abc import Sequence

from vkconv.dispatch import Dispatch, PushValue, c4_dims
from vkconv.ops.base import Lowering, Tensor, ceil_div
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_selection import ONE, Choice, Problem, select_kernel
from vkconv.ops.conv_weights import WeightFormat, packed_weights
from vkconv.ops.window import Axis
from vkconv.ops.winograd import lower_winograd

#: kernels whose weights are packed by ``pack_lanes``
LANE_KERNELS = ("depthwise_conv2d", "grouped_conv")


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
    choice = select_kernel(problem, ctx.caps)
    if choice.kernel == "winograd":
        return lower_winograd(ctx, x, weight, bias, y, problem, choice, epilogue)
    tile = 0 if choice.kernel in LANE_KERNELS else choice.output_tile
    weights, steps = packed_weights(ctx, weight, bias, WeightFormat(groups, tile, transposed))
    view = y.on_device
    push = _push(problem, choice)
    push |= epilogue.push(y.shape[1])
    spec = _spec(problem, choice) | epilogue.spec(y.shape[1]) | {"local_size_x": choice.lanes}
    buffers = {
        "x": ctx.operand(x, "c4"),
        "weights": weights,
        "residual": epilogue.view(ctx),
        "y": view,
    }
    shuffle = (
        {}
        if choice.kernel not in ("conv2d_1x1", "conv2d")
        else {"shuffle": "on" if choice.shuffle else "off"}
    )
    grid = _grid(problem, choice)
    return [*steps, ctx.dispatch(choice.kernel, buffers, push, spec, grid, **shuffle)]


def _tiles(problem: Problem, choice: Choice) -> int:
    return ceil_div(problem.out_channels, choice.output_tile)


def _push(problem: Problem, choice: Choice) -> dict[str, PushValue]:
    ay, ax = problem.y, problem.x
    blocks: dict[str, PushValue] = {
        "in_blocks": ceil_div(problem.in_channels, 4),
        "out_blocks": ceil_div(problem.out_channels, 4),
        "tiles": _tiles(problem, choice),
    }
    if choice.kernel == "conv2d_1x1":
        return blocks | {"pixels": problem.out_pixels}
    if choice.kernel in ("conv3d", "grouped_conv"):
        channels = {"in_channels": problem.in_channels, "out_channels": problem.out_channels}
        return _push_axes(problem.axes) | (blocks if choice.kernel == "conv3d" else channels)
    maps: dict[str, PushValue] = {
        "height": ay.size,
        "width": ax.size,
        "out_height": ay.out,
        "out_width": ax.out,
        "pad_top": ay.begin,
        "pad_left": ax.begin,
    }
    if choice.kernel == "depthwise_conv2d":
        return maps
    rows: dict[str, PushValue] = {
        "kernel_h": ay.kernel,
        "stride_y": ay.stride,
        "dilation_y": ay.dilation,
    }
    if choice.kernel == "conv2d":
        return blocks | maps | rows
    columns: dict[str, PushValue] = {
        "kernel_w": ax.kernel,
        "stride_x": ax.stride,
        "dilation_x": ax.dilation,
    }
    return blocks | maps | rows | columns


def _push_axes(axes: Sequence[Axis]) -> dict[str, PushValue]:
    return {
        "in_size": [a.size for a in axes],
        "out_size": [a.out for a in axes],
        "kernel": [a.kernel for a in axes],
        "stride": [a.stride for a in axes],
        "dilation": [a.dilation for a in axes],
        "pad": [a.begin for a in axes],
    }


def _spec(problem: Problem, choice: Choice) -> dict[str, int | float]:
    ay, ax = problem.y, problem.x
    columns = {"KERNEL_W": ax.kernel, "STRIDE_X": ax.stride, "DILATION_X": ax.dilation}
    if choice.kernel == "depthwise_conv2d":
        rows = {"KERNEL_H": ay.kernel, "STRIDE_Y": ay.stride, "DILATION_Y": ay.dilation}
        return {"PIXELS": choice.pixels, "ROWS": choice.output_tile, **columns, **rows}
    if choice.kernel == "grouped_conv":
        return {"TRANSPOSED": int(problem.transposed)}
    tile: dict[str, int | float] = {"OUTPUT_TILE": choice.output_tile, "PIXELS": choice.pixels}
    if choice.kernel == "conv3d":
        tile["TRANSPOSED"] = int(problem.transposed)
    if choice.kernel == "conv2d":
        span = (choice.pixels - 1) * ax.stride + (ax.kernel - 1) * ax.dilation + 1
        tile |= {**columns, "ROW_REUSE": int(span <= choice.pixels * ax.kernel and span <= 24)}
    return tile


def _grid(problem: Problem, choice: Choice) -> tuple[int, int, int]:
    ay, ax = problem.y, problem.x
    _, blocks, _, _ = c4_dims((1, problem.out_channels * problem.groups))
    if choice.kernel == "conv2d_1x1":
        columns, rows = ceil_div(problem.out_pixels, choice.pixels), 1
    elif problem.transposed and choice.kernel != "grouped_conv":
        columns = ax.stride * ceil_div(ceil_div(ax.out, ax.stride), choice.pixels)
        rows = problem.z.out * ay.out
    elif choice.kernel == "depthwise_conv2d":
        columns, rows = ceil_div(ax.out, choice.pixels), ceil_div(ay.out, choice.output_tile)
    else:
        columns, rows = ceil_div(ax.out, choice.pixels), problem.z.out * ay.out
    if choice.kernel not in LANE_KERNELS:
        blocks = problem.groups * _tiles(problem, choice)
    return ceil_div(columns * rows, choice.lanes), blocks, problem.batch
