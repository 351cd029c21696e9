"""Kernels of the convolution family: which one for which shape, how weights are packed, the
dispatch.

``select_kernel`` is pure and knows nothing but shapes and device facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, PushValue, c4_dims
from vkconv.ops.activation_codes import Activation
from vkconv.ops.base import Lowering, Tensor, ceil_div
from vkconv.ops.conv_geometry import Axis
from vkconv.ops.conv_weights import WeightFormat, packed_weights

#: lanes that share their weights through shuffles in the kernels with shuffle = on
SHUFFLE_LANES = 8
RESIDUAL_CODES = {"": 0, "first": 1, "last": 2}
#: kernels whose weights are packed by ``pack_lanes``
LANE_KERNELS = ("depthwise_conv2d", "grouped_conv")
#: an axis that is not there
ONE = Axis(1, 1, 1, 1, 1, 0, 0)


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
    """A convolution: channels of one group, and the spatial axes (a 1-D one has a height of 1)."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    y: Axis
    x: Axis
    transposed: bool = False
    z: Axis = ONE

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        return self.z, self.y, self.x

    @property
    def is_flat(self) -> bool:
        """Whether the depth is that of a 2-D convolution."""
        return self.z == ONE

    @property
    def out_pixels(self) -> int:
        return self.z.out * self.y.out * self.x.out

    @property
    def is_pointwise(self) -> bool:
        return all(a.kernel == a.stride == 1 and a.begin == a.end == 0 for a in self.axes)

    @property
    def is_depthwise(self) -> bool:
        single = self.groups > 1 and self.in_channels == self.out_channels == 1
        return single and self.is_flat and not self.transposed

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
        return Choice("grouped_conv", 4, 1, min(lanes * 4, caps.max_workgroup_invocations))
    tile = 16 if cpu else 8
    while tile > 4 and tile // 2 >= problem.out_channels:
        tile //= 2
    if problem.transposed or not (problem.is_flat or problem.is_pointwise):
        kernel = "conv_transpose2d" if problem.is_flat else "conv3d"
        return Choice(kernel, min(tile, 8), 4, lanes)
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
    extent = problem.out_pixels if problem.is_pointwise else problem.x.out
    best, waste = 4, 10.0
    for pixels in (4, 5):
        unit = pixels * lanes if problem.is_pointwise else pixels
        lost = ceil_div(extent, unit) * unit / extent
        if lost < waste - 0.05:
            best, waste = pixels, lost
    return best


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
    )
    choice = select_kernel(problem, ctx.caps)
    tile = 0 if choice.kernel in LANE_KERNELS else choice.output_tile
    weights, steps = packed_weights(ctx, weight, bias, WeightFormat(groups, tile, transposed))
    view = y.on_device
    push = _push(problem, choice)
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
