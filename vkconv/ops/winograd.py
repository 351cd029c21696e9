"""Winograd F(m x m, 3x3) convolution for m = 4 or 2 in three steps: patches are transformed,
multiplied by the transformed weights as (m + 2)^2 matrix products, and transformed back.

    Y = A^T [(G g G^T) * (B^T d B)] A      for each patch d of (m + 2)^2 and 3x3 kernel g

(Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.) All intermediates are
float32. The weights are transformed when they are packed (``weight_packing``); the matrix products
run on a convolution kernel: 1x1, with a group for each element, whose pixels are the patches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.ops.conv_dispatch import conv_dispatch
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_problem import ONE, Choice, Problem
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.packing import pad_axis
from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis
from vkconv.weight_packing import packing

EDGES = {"winograd_4x4": 4, "winograd_2x2": 2}


def lower_winograd(
    ctx: Lowering,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    problem: Problem,
    choice: Choice,
    epilogue: Epilogue,
) -> list[Dispatch]:
    """The three dispatches of a 3x3 convolution with constant weights, stride and dilation 1."""
    array = weight.array
    assert array is not None
    edge = EDGES[choice.kernel]
    elements, count = (edge + 2) ** 2, problem.patches(edge)
    in_blocks, out_blocks = ceil_div(problem.in_channels, 4), ceil_div(problem.out_channels, 4)
    weights = ctx.prepack(
        array,
        f"winograd weights {edge} {choice.output_tile}",
        packing("winograd", array, edge=edge, tile=choice.output_tile),
    )
    patches = {
        "tiles_y": ceil_div(problem.y.out, edge),
        "tiles_x": ceil_div(problem.x.out, edge),
        "patches": count,
    }
    data = ctx.scratch(elements * in_blocks * count * 4, "transformed input")
    results = ctx.scratch(elements * out_blocks * count * 4, "transformed output")
    # the product's groups may be larger than what suits the transforms, or smaller: those of a CPU
    # driver take 600 cycles to start, an eighth of eight lanes' time
    lanes = max(min(choice.lanes, 64), 16)
    columns = ceil_div(count, lanes)
    size = {"local_size_x": lanes}
    into = ctx.dispatch(
        "winograd_input",
        {"x": ctx.operand(x, "c4"), "y": data},
        {
            "height": problem.y.size,
            "width": problem.x.size,
            "pad_top": problem.y.begin,
            "pad_left": problem.x.begin,
            "in_blocks": in_blocks,
            **patches,
        },
        size,
        (columns, in_blocks, 1),
        size=f"f{edge}",
    )
    flat = Axis(count, count, 1, 1, 1, 0, 0)
    multiply = conv_dispatch(
        ctx,
        Problem(1, elements, problem.in_channels, problem.out_channels, ONE, flat),
        replace(choice, kernel=choice.multiply, multiply=""),
        {"x": data, "weights": weights, "residual": None, "y": results},
        Epilogue(),
        ceil_div(problem.out_channels, 4) * 4,
    )
    out_of = ctx.dispatch(
        "winograd_output",
        {
            "x": results,
            "bias": _bias(ctx, weight, bias, problem.out_channels),
            "residual": epilogue.view(ctx),
            "y": y.on_device,
        },
        {
            "out_height": problem.y.out,
            "out_width": problem.x.out,
            "out_blocks": out_blocks,
            **patches,
            **epilogue.push(problem.out_channels, problem.out_pixels),
        },
        {**size, **epilogue.spec(problem.out_channels)},
        (columns, out_blocks, 1),
        size=f"f{edge}",
        result=epilogue.result,
    )
    return [into, multiply, out_of]


def _bias(ctx: Lowering, weight: Tensor, bias: Tensor | None, channels: int) -> View:
    array = None if bias is None else bias.array
    if array is None:
        assert weight.array is not None
        return ctx.prepack(weight.array, "no bias", lambda: np.zeros(ceil_div(channels, 4) * 4))
    return ctx.prepack(array, "bias", lambda: pad_axis(array, 0, 4))
