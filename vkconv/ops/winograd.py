"""Winograd F(4x4, 3x3) convolution in three steps: patches are transformed, multiplied by the
transformed weights as 36 matrix products, and transformed back.

    Y = A^T [(G g G^T) * (B^T d B)] A      for each 6x6 patch d and 3x3 kernel g

(Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.) All intermediates are
float32; the weights are transformed in float64. The matrix products run on ``conv2d_1x1``: 36
groups whose pixels are the patches.
"""

from __future__ import annotations

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.ir import Array
from vkconv.ops.base import Lowering, Tensor, ceil_div
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_selection import Choice, Problem
from vkconv.ops.conv_weights import pack_tiles
from vkconv.ops.packing import pad_axis

#: elements of a transformed patch
ELEMENTS = 36
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


def transformed_weights(weight: Array, tile: int) -> Array:
    """G g G^T of every kernel of (M, C, 3, 3), packed for ``conv2d_1x1`` with 36 groups."""
    out_channels, in_channels = weight.shape[:2]
    # vec(G g G^T) = (G x G) vec(g)
    kernels = np.kron(G, G) @ weight.reshape(-1, 9).T.astype(np.float64)
    flat = kernels.reshape(ELEMENTS * out_channels, in_channels, 1)
    return pack_tiles(flat, None, ELEMENTS, tile)


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
    in_blocks, out_blocks = ceil_div(problem.in_channels, 4), ceil_div(problem.out_channels, 4)
    weights = ctx.prepack(
        array,
        f"winograd weights {choice.output_tile}",
        lambda: transformed_weights(array, choice.output_tile),
    )
    patches = {
        "tiles_y": ceil_div(problem.y.out, 4),
        "tiles_x": ceil_div(problem.x.out, 4),
        "patches": problem.patches,
    }
    data = ctx.scratch(ELEMENTS * in_blocks * problem.patches * 4, "transformed input")
    product = ctx.scratch(ELEMENTS * out_blocks * problem.patches * 4, "transformed output")
    columns = ceil_div(problem.patches, choice.lanes)
    tiles = ceil_div(problem.out_channels, choice.output_tile)
    size = {"local_size_x": choice.lanes}
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
    )
    multiply = ctx.dispatch(
        "conv2d_1x1",
        {"x": data, "weights": weights, "residual": None, "y": product},
        {
            "in_blocks": in_blocks,
            "out_blocks": out_blocks,
            "tiles": tiles,
            "pixels": problem.patches,
            **Epilogue().push(problem.out_channels),
        },
        {"OUTPUT_TILE": choice.output_tile, "PIXELS": choice.pixels, **size},
        (ceil_div(columns, choice.pixels), ELEMENTS * tiles, 1),
        shuffle="on" if choice.shuffle else "off",
    )
    out_of = ctx.dispatch(
        "winograd_output",
        {
            "x": product,
            "bias": _bias(ctx, weight, bias, problem.out_channels),
            "residual": epilogue.view(ctx),
            "y": y.on_device,
        },
        {
            "out_height": problem.y.out,
            "out_width": problem.x.out,
            "out_blocks": out_blocks,
            **patches,
            **epilogue.push(problem.out_channels),
        },
        {**size, **epilogue.spec(problem.out_channels)},
        (columns, out_blocks, 1),
    )
    return [into, multiply, out_of]


def _bias(ctx: Lowering, weight: Tensor, bias: Tensor | None, channels: int) -> View:
    array = None if bias is None else bias.array
    if array is None:
        assert weight.array is not None
        return ctx.prepack(weight.array, "no bias", lambda: np.zeros(ceil_div(channels, 4) * 4))
    return ctx.prepack(array, "bias", lambda: pad_axis(array, 0, 4))
