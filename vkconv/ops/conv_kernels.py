"""Kernels of the convolution family: which one for which shape, how weights are packed, the
dispatch.

``select_kernel`` is pure and knows nothing but shapes and device facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.ir import Array
from vkconv.ops.activation_codes import Activation
from vkconv.ops.base import Lowering, Tensor, ceil_div
from vkconv.ops.conv_geometry import Axis
from vkconv.ops.packing import pad_axis

#: lanes that share their weights through shuffles in the kernels with shuffle = on
SHUFFLE_LANES = 8
RESIDUAL_CODES = {"": 0, "first": 1, "last": 2}


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum before it is stored: see ``FINISH`` in ``convolution.glsl``."""

    activation: int = int(Activation.NONE)
    alpha: float = 0.0
    beta: float = 0.0
    residual: str = ""
    residual_tensor: Tensor | None = None


@dataclass(frozen=True)
class Problem:
    """A 2-D convolution: channels of one group, and the two axes (a 1-D one has a height of 1)."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    y: Axis
    x: Axis
    transposed: bool = False

    @property
    def is_pointwise(self) -> bool:
        return all(a.kernel == a.stride == 1 and a.begin == a.end == 0 for a in (self.y, self.x))

    @property
    def is_depthwise(self) -> bool:
        return (
            self.groups > 1 and self.in_channels == self.out_channels == 1 and not self.transposed
        )

    @property
    def has_whole_groups(self) -> bool:
        return self.groups == 1 or (self.in_channels % 4 == 0 and self.out_channels % 4 == 0)


@dataclass(frozen=True)
class Choice:
    """A kernel and its tile: output channels (rows for depthwise) and pixels of one invocation,
    lanes of a group."""

    kernel: str
    output_tile: int
    pixels: int
    lanes: int
    shuffle: bool = False


def select_kernel(problem: Problem, caps: DeviceCaps) -> Choice:
    """The kernel for a shape on a device, by rule.

    On CPU drivers (measured on lavapipe): 16 x 4 sums an invocation, groups of 8 lanes (one SIMD
    register), weights spread by shuffles. Elsewhere: 8 x 4 sums, which mobile GPUs keep in
    registers, and groups of 64.
    """
    cpu = caps.kind == "cpu"
    lanes = min(8 if cpu else 64, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    if problem.is_depthwise:
        rows = _depthwise_rows(problem)
        return Choice("depthwise_conv2d", rows, 4 if problem.x.kernel <= 7 else 1, lanes)
    if not problem.has_whole_groups:
        return Choice("grouped_conv2d", 4, 1, min(lanes * 4, caps.max_workgroup_invocations))
    tile = 16 if cpu else 8
    while tile > 4 and tile // 2 >= problem.out_channels:
        tile //= 2
    if problem.transposed:
        return Choice("conv_transpose2d", min(tile, 8), 4, lanes)
    shuffle = cpu and caps.subgroup_shuffle and caps.subgroup_size >= SHUFFLE_LANES and tile >= 8
    shuffle = shuffle and lanes % caps.subgroup_size == 0
    kernel = "conv2d_1x1" if problem.is_pointwise else "conv2d"
    return Choice(kernel, tile, _pixels(problem, lanes), lanes, shuffle)


def _depthwise_rows(problem: Problem) -> int:
    """Output rows an invocation computes: more reuse of input rows, until code and registers grow
    too large."""
    taps = problem.y.kernel * problem.x.kernel
    if problem.y.out < 4 or taps > 49:
        return 1
    return 4 if taps <= 9 else 2


def _pixels(problem: Problem, lanes: int) -> int:
    """4 pixels, or 5 where that divides the row (or plane) and 4 does not."""
    extent = problem.x.out * problem.y.out if problem.is_pointwise else problem.x.out
    best, waste = 4, 10.0
    for pixels in (4, 5):
        unit = pixels * lanes if problem.is_pointwise else pixels
        lost = ceil_div(extent, unit) * unit / extent
        if lost < waste - 0.05:
            best, waste = pixels, lost
    return best


# --- weights --------------------------------------------------------------------------


def pack_tiles(weight: Array, bias: Array | None, groups: int, tile: int) -> Array:
    """(M, C/group, taps...) to ``[group][tile of outputs][bias | input block][tap][output][4
    inputs]``, as the tiled kernels read it: per tile first its biases, then the weights."""
    out_channels, in_channels = weight.shape[:2]
    kernels = weight.reshape(groups, out_channels // groups, in_channels, -1).astype(np.float32)
    kernels = pad_axis(pad_axis(kernels, 1, tile), 2, 4)
    tiles, blocks, taps = kernels.shape[1] // tile, kernels.shape[2] // 4, kernels.shape[3]
    # axes: group, tile, output, block, input, tap
    split = kernels.reshape(groups, tiles, tile, blocks, 4, taps)
    body = split.transpose(0, 1, 3, 5, 2, 4).reshape(groups, tiles, -1)
    head = np.zeros((groups, out_channels // groups), np.float32)
    if bias is not None:
        head[:] = bias.reshape(groups, -1)
    return np.concatenate([pad_axis(head, 1, tile).reshape(groups, tiles, tile), body], axis=2)


def pack_lanes(weight: Array, bias: Array | None) -> Array:
    """(M, C/group, taps...) to ``[block of 4 outputs][bias | input, tap][4 outputs]``: depthwise
    and grouped kernels."""
    out_channels = weight.shape[0]
    rows = np.zeros((out_channels, 1 + int(np.prod(weight.shape[1:]))), np.float32)
    rows[:, 1:] = weight.reshape(out_channels, -1)
    if bias is not None:
        rows[:, 0] = bias
    rows = pad_axis(rows, 0, 4)
    return np.ascontiguousarray(rows.reshape(-1, 4, rows.shape[1]).transpose(0, 2, 1))


# --- dispatch -------------------------------------------------------------------------


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
    """One dispatch for a 1-D or 2-D convolution in C4 with constant weights (M, C/group,
    kernel...)."""
    if 0 in y.shape:
        return []
    axis_y = Axis(1, 1, 1, 1, 1, 0, 0) if len(axes) == 1 else axes[0]
    problem = Problem(
        y.shape[0], groups, x.shape[1] // groups, y.shape[1] // groups, axis_y, axes[-1], transposed
    )
    choice = select_kernel(problem, ctx.caps)
    array, bias_array = weight.array, None if bias is None else bias.array
    assert array is not None
    sources = (array,) if bias_array is None else (array, bias_array)
    tiled = choice.kernel not in ("depthwise_conv2d", "grouped_conv2d")
    plain = _out_first(array, groups) if transposed else array
    if tiled:
        tag = f"conv tiles {groups} {choice.output_tile} {transposed}"
        weights = ctx.prepack(
            sources, tag, lambda: pack_tiles(plain, bias_array, groups, choice.output_tile)
        )
    else:
        tag = f"conv lanes {groups} {transposed}"
        weights = ctx.prepack(sources, tag, lambda: pack_lanes(plain, bias_array))
    view = y.on_device
    push = _push(problem, choice, view)
    push |= {"channels": y.shape[1], "alpha": epilogue.alpha, "beta": epilogue.beta}
    spec = _spec(problem, choice)
    spec |= {
        "local_size_x": choice.lanes,
        "ACTIVATION": epilogue.activation,
        "RESIDUAL": RESIDUAL_CODES[epilogue.residual if epilogue.residual_tensor else ""],
        "MASKED": int(y.shape[1] % 4 != 0),
    }
    residual = None
    if epilogue.residual_tensor is not None:
        residual = ctx.operand(epilogue.residual_tensor, "c4")
    buffers = {"x": ctx.operand(x, "c4"), "weights": weights, "residual": residual, "y": view}
    shuffle = (
        {}
        if choice.kernel not in ("conv2d_1x1", "conv2d")
        else {"shuffle": "on" if choice.shuffle else "off"}
    )
    return [ctx.dispatch(choice.kernel, buffers, push, spec, _grid(problem, choice), **shuffle)]


def _out_first(weight: Array, groups: int) -> Array:
    """ConvTranspose's weights (C, M/group, kernel...) as (M, C/group, kernel...)."""
    channels, group_out = weight.shape[:2]
    split = weight.reshape(groups, channels // groups, group_out, *weight.shape[2:])
    return np.swapaxes(split, 1, 2).reshape(
        groups * group_out, channels // groups, *weight.shape[2:]
    )


def _tiles(problem: Problem, choice: Choice) -> int:
    return ceil_div(problem.out_channels, choice.output_tile)


def _push(problem: Problem, choice: Choice, y: View) -> dict[str, int | float]:
    ay, ax = problem.y, problem.x
    blocks: dict[str, int | float] = {
        "in_blocks": ceil_div(problem.in_channels, 4),
        "out_blocks": ceil_div(problem.out_channels, 4),
        "tiles": _tiles(problem, choice),
    }
    if choice.kernel == "conv2d_1x1":
        return blocks | {"pixels": ay.out * ax.out}
    maps: dict[str, int | float] = {
        "height": ay.size,
        "width": ax.size,
        "out_height": ay.out,
        "out_width": ax.out,
        "pad_top": ay.begin,
        "pad_left": ax.begin,
    }
    if choice.kernel == "depthwise_conv2d":
        return maps
    rows: dict[str, int | float] = {
        "kernel_h": ay.kernel,
        "stride_y": ay.stride,
        "dilation_y": ay.dilation,
    }
    if choice.kernel == "conv2d":
        return blocks | maps | rows
    columns = {"kernel_w": ax.kernel, "stride_x": ax.stride, "dilation_x": ax.dilation}
    if choice.kernel == "conv_transpose2d":
        return blocks | maps | rows | columns
    channels = {"in_channels": problem.in_channels, "out_channels": problem.out_channels}
    return channels | maps | rows | columns


def _spec(problem: Problem, choice: Choice) -> dict[str, int | float]:
    ay, ax = problem.y, problem.x
    columns = {"KERNEL_W": ax.kernel, "STRIDE_X": ax.stride, "DILATION_X": ax.dilation}
    if choice.kernel == "depthwise_conv2d":
        rows = {"KERNEL_H": ay.kernel, "STRIDE_Y": ay.stride, "DILATION_Y": ay.dilation}
        return {"PIXELS": choice.pixels, "ROWS": choice.output_tile, **columns, **rows}
    if choice.kernel == "grouped_conv2d":
        return {"TRANSPOSED": int(problem.transposed)}
    tile: dict[str, int | float] = {"OUTPUT_TILE": choice.output_tile, "PIXELS": choice.pixels}
    if choice.kernel == "conv2d":
        span = (choice.pixels - 1) * ax.stride + (ax.kernel - 1) * ax.dilation + 1
        tile |= {**columns, "ROW_REUSE": int(span <= choice.pixels * ax.kernel and span <= 24)}
    return tile


def _grid(problem: Problem, choice: Choice) -> tuple[int, int, int]:
    ay, ax = problem.y, problem.x
    _, blocks, _, _ = c4_dims((1, problem.out_channels * problem.groups))
    if choice.kernel == "conv2d_1x1":
        columns, rows = ceil_div(ay.out * ax.out, choice.pixels), 1
    elif choice.kernel == "conv_transpose2d":
        columns, rows = ax.stride * ceil_div(ceil_div(ax.out, ax.stride), choice.pixels), ay.out
    elif choice.kernel == "depthwise_conv2d":
        columns, rows = ceil_div(ax.out, choice.pixels), ceil_div(ay.out, choice.output_tile)
    else:
        columns, rows = ceil_div(ax.out, choice.pixels), ay.out
    if choice.kernel not in ("depthwise_conv2d", "grouped_conv2d"):
        blocks = problem.groups * _tiles(problem, choice)
    return ceil_div(columns * rows, choice.lanes), blocks, problem.batch
