"""The dispatch of one convolution kernel: from a shape and a choice to push constants,
specialization constants and grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd, prod

from vkconv.dispatch import Dispatch, Number, PushValue, View, c4_dims
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_problem import ONE, SHUFFLE_LANES, SUBGROUP, Choice, Problem, parts
from vkconv.ops.lowering import Lowering
from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis

#: kernels whose weights are packed by ``pack_lanes``
LANE_KERNELS = ("depthwise_conv2d", "depthwise_conv2d_4x1", "grouped_conv")
#: kernels with a shuffle axis
SHUFFLING = ("conv3d", "conv2d", "conv_transpose2d")
#: products over channels at single pixels
POINTWISE = ("conv2d_1x1", SUBGROUP)
#: kernels of one phase a workgroup (``include/phases.glsl``)
SUB_PIXEL = ("conv_transpose2d", "conv_transpose2d_8x4")
#: kernels of four outputs below each other (``include/strip.glsl``)
STRIPS = ("conv2d_8x4", "depthwise_conv2d_4x1")
#: kernels that can store their result in LINEAR
STORING_LINEAR = (*POINTWISE, "conv2d", "conv2d_8x4", "conv2d_shared")
#: kernels that can multiply their input's channels by factors, of one more buffer
SCALING = (*POINTWISE, "conv2d_8x4", "conv2d_shared")


def conv_dispatch(
    ctx: Lowering,
    problem: Problem,
    choice: Choice,
    buffers: Mapping[str, View | None],
    epilogue: Epilogue,
    channels: int,
) -> Dispatch:
    """``choice.kernel`` (none of the Winograd forms) on x, weights packed for it, residual and y;
    ``channels`` of y over all groups. For a kernel of SCALING there may be a ``scale`` too."""
    push = _push(problem, choice) | epilogue.push(channels, problem.out_pixels)
    spec = _spec(problem, choice) | epilogue.spec(channels) | {"local_size_x": choice.lanes}
    shuffle = "on" if choice.shuffle else "off"
    axes = {"shuffle": shuffle} if choice.kernel in SHUFFLING else {}
    if choice.kernel in SCALING:
        axes["scale"] = "on" if "scale" in buffers else "off"
    if choice.kernel in STORING_LINEAR:
        axes["result"] = epilogue.result
    if choice.kernel in STRIPS:
        axes["taps"] = _taps(problem, choice)
    if choice.access:
        axes["access"] = choice.access
    return ctx.dispatch(choice.kernel, buffers, push, spec, _grid(problem, choice), **axes)


def _tiles(problem: Problem, choice: Choice) -> int:
    return ceil_div(problem.out_channels, choice.output_tile)


def _groups(problem: Problem, choice: Choice) -> int:
    """Tiles of output channels, group after group."""
    return problem.groups * _tiles(problem, choice)


def _is_one_row(problem: Problem, choice: Choice) -> bool:
    """Whether the kernel gets the map as one row of pixels: ``conv2d_8x4`` at each pixel by itself,
    ``conv2d_shared`` because it knows no depth."""
    return problem.is_pointwise and choice.kernel in ("conv2d_8x4", "conv2d_shared")


def _is_turned(problem: Problem, choice: Choice) -> bool:
    """Whether strips run along the columns: there are too few rows to fill one."""
    few = problem.y.out < min(choice.pixels, problem.x.out)
    return few and choice.kernel in STRIPS and not _is_one_row(problem, choice)


def _seen(problem: Problem, choice: Choice) -> tuple[Axis, Axis]:
    """The axes that a kernel takes for rows and columns."""
    if _is_one_row(problem, choice):
        return ONE, Axis(problem.out_pixels, problem.out_pixels, 1, 1, 1, 0, 0)
    return (problem.x, problem.y) if _is_turned(problem, choice) else (problem.y, problem.x)


def _taps(problem: Problem, choice: Choice) -> str:
    """The variant of a kernel of STRIPS: what it may take for granted of a window's taps."""
    if _is_one_row(problem, choice):
        return "one"
    rows, _ = _seen(problem, choice)
    return "sliding" if rows.kernel > 1 and rows.stride == rows.dilation else "any"


def _push(problem: Problem, choice: Choice) -> dict[str, PushValue]:
    ay, ax = _seen(problem, choice)
    blocks: dict[str, PushValue] = {
        "in_blocks": ceil_div(problem.in_channels, 4),
        "out_blocks": ceil_div(problem.out_channels, 4),
        "tiles": _tiles(problem, choice),
    }
    if choice.kernel in POINTWISE:
        return blocks | _push_pixels(problem)
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
    if choice.kernel in SUB_PIXEL:
        return blocks | maps | {"kernel_h": ay.kernel, "kernel_w": ax.kernel}
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
    if choice.kernel == "depthwise_conv2d_4x1":
        return maps | rows | columns
    return blocks | maps | rows | columns


def _push_pixels(problem: Problem) -> dict[str, PushValue]:
    """Where the kernels of POINTWISE find the input pixel of an output pixel."""
    return {
        "pixels": problem.out_pixels,
        "in_pixels": prod(a.size for a in problem.axes),
        "origin": -problem.y.begin * problem.x.size - problem.x.begin,
        "out_width": problem.x.out,
        "row_step": problem.y.stride * problem.x.size,
        "column_step": problem.x.stride,
    }


def _push_axes(axes: Sequence[Axis]) -> dict[str, PushValue]:
    return {
        "in_size": [a.size for a in axes],
        "out_size": [a.out for a in axes],
        "kernel": [a.kernel for a in axes],
        "stride": [a.stride for a in axes],
        "dilation": [a.dilation for a in axes],
        "pad": [a.begin for a in axes],
    }


def _spec(problem: Problem, choice: Choice) -> dict[str, Number]:
    ay, ax = problem.y, problem.x
    columns = {"KERNEL_W": ax.kernel, "STRIDE_X": ax.stride, "DILATION_X": ax.dilation}
    if choice.kernel == "depthwise_conv2d":
        rows = {"KERNEL_H": ay.kernel, "STRIDE_Y": ay.stride, "DILATION_Y": ay.dilation}
        return {"PIXELS": choice.pixels, "ROWS": choice.output_tile, **columns, **rows}
    if choice.kernel == "grouped_conv":
        return {"TRANSPOSED": int(problem.transposed)}
    if choice.kernel == "depthwise_conv2d_4x1":
        return {"TURNED": _is_turned(problem, choice)}
    if choice.kernel == "conv2d_8x4":
        return {"WIDE": choice.output_tile == 8, "TURNED": _is_turned(problem, choice)}
    if choice.kernel == "conv2d_shared":
        return {"SPLIT": choice.lanes // 64, "POINTWISE": _is_one_row(problem, choice)}
    if choice.kernel == "conv_transpose2d_8x4":
        return {"WIDE": int(choice.output_tile == 8), **_phases("Y", ay), **_phases("X", ax)}
    tile: dict[str, Number] = {"OUTPUT_TILE": choice.output_tile, "PIXELS": choice.pixels}
    if choice.kernel == SUBGROUP:
        tile["PIXELS"] = choice.pixels // parts(choice.output_tile)
    if choice.kernel in POINTWISE:
        tile["STRIDED"] = int(not problem.is_pointwise)
    if choice.kernel == "conv_transpose2d":
        tile |= _phases("Y", ay) | _phases("X", ax)
    if choice.kernel == "conv3d":
        tile["TRANSPOSED"] = int(problem.transposed)
    if choice.kernel == "conv2d":
        span = (choice.pixels - 1) * ax.stride + (ax.kernel - 1) * ax.dilation + 1
        reuse = span <= choice.pixels * ax.kernel and span <= 24
        tile |= {**columns, "ROW_REUSE": int(reuse), "CHANNELS": min(problem.in_channels, 4)}
    return tile


def _phases(suffix: str, axis: Axis) -> dict[str, Number]:
    """What ``include/phases.glsl`` wants to know of an axis."""
    common = gcd(axis.stride, axis.dilation)
    step = axis.stride // common
    return {
        f"STRIDE_{suffix}": axis.stride,
        f"DILATION_{suffix}": axis.dilation,
        f"COMMON_{suffix}": common,
        f"INVERSE_{suffix}": pow(axis.dilation // common, -1, step) if step > 1 else 0,
    }


def _grid(problem: Problem, choice: Choice) -> tuple[int, int, int]:
    ay, ax = _seen(problem, choice)
    _, blocks, _, _ = c4_dims((1, problem.out_channels * problem.groups))
    if choice.kernel in POINTWISE:
        columns, rows = ceil_div(problem.out_pixels, choice.pixels), 1
        if choice.kernel == SUBGROUP:
            columns *= SHUFFLE_LANES
    elif choice.kernel == "conv2d_shared":
        return ceil_div(problem.out_pixels, choice.pixels), _groups(problem, choice), problem.batch
    elif choice.kernel in SUB_PIXEL:
        columns = ceil_div(ceil_div(ax.out, ax.stride), choice.pixels)
        chunks = ceil_div(columns * ceil_div(ay.out, ay.stride), choice.lanes)
        return chunks * ay.stride * ax.stride, _groups(problem, choice), problem.batch
    elif problem.transposed and choice.kernel == "conv3d":
        columns = ax.stride * ceil_div(ceil_div(ax.out, ax.stride), choice.pixels)
        rows = problem.z.out * ay.out
    elif choice.kernel == "depthwise_conv2d":
        columns, rows = ceil_div(ax.out, choice.pixels), ceil_div(ay.out, choice.output_tile)
    elif _is_one_row(problem, choice):
        columns, rows = ceil_div(ax.out, choice.pixels), 1
    elif choice.kernel in STRIPS:
        columns, rows = ax.out, ceil_div(ay.out, choice.pixels)
    else:
        columns, rows = ceil_div(ax.out, choice.pixels), problem.z.out * ay.out
    if choice.kernel not in LANE_KERNELS:
        blocks = _groups(problem, choice)
    return ceil_div(columns * rows, choice.lanes), blocks, problem.batch
