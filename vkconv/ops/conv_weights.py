"""Weights as the convolution kernels read them: packed by numpy when they are constants, by
``pack_weights.comp`` when the model computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vkconv.dispatch import Dispatch, Packing, View
from vkconv.ir import Array
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.packing import pad_axis
from vkconv.ops.shapes import ceil_div
from vkconv.weight_packing import out_first, packing


@dataclass(frozen=True)
class WeightFormat:
    """``tile`` outputs together (``weight_packing.tiles``), or 0: four outputs a vec4
    (``pack_lanes``).

    ``transposed``: the weights come as ConvTranspose has them, (C, M/group, kernel...).
    """

    groups: int
    tile: int
    transposed: bool = False


def packed_weights(
    ctx: Lowering, weight: Tensor, bias: Tensor | None, form: WeightFormat
) -> tuple[View, list[Dispatch]]:
    """The packed weights and biases, and the dispatches that pack what is not constant."""
    array, bias_array = weight.array, None if bias is None else bias.array
    if array is None or (bias is not None and bias_array is None):
        return _pack_on_device(ctx, weight, bias, form)
    pack: Packing | Callable[[], Array]
    if form.tile:
        numbers = {"groups": form.groups, "tile": form.tile, "transposed": int(form.transposed)}
        pack = packing("tiles", array, bias_array, **numbers)
    else:
        kernels = out_first(array, form.groups) if form.transposed else array

        def pack() -> Array:
            return pack_lanes(kernels, bias_array)

    sources = (array,) if bias_array is None else (array, bias_array)
    return ctx.prepack(sources, f"convolution {form}", pack), []


def _pack_on_device(
    ctx: Lowering, weight: Tensor, bias: Tensor | None, form: WeightFormat
) -> tuple[View, list[Dispatch]]:
    first, second, *kernel = weight.shape
    taps = int(np.prod(kernel))
    out_channels, in_channels = (
        (second, first // form.groups) if form.transposed else (first // form.groups, second)
    )
    if form.tile:
        rows = form.groups * ceil_div(out_channels, form.tile)
        length = form.tile // 4 + ceil_div(in_channels, 4) * form.tile * taps
    else:
        rows, length = ceil_div(form.groups * out_channels, 4), 1 + in_channels * taps
    packed = ctx.scratch(rows * length * 4, "packed weights")
    where = spread(ctx.caps, length, rows)
    dispatch = ctx.dispatch(
        "pack_weights",
        {
            "x": ctx.operand(weight, "linear"),
            "bias": None if bias is None else ctx.operand(bias, "linear"),
            "y": packed,
        },
        {
            "groups": form.groups,
            "out_channels": out_channels,
            "in_channels": in_channels,
            "taps": taps,
            "tile": max(form.tile, 4),
        },
        {
            **where.spec,
            "TILED": int(form.tile > 0),
            "TRANSPOSED": int(form.transposed),
            "BIASED": int(bias is not None),
        },
        where.count,
    )
    return packed, [dispatch]


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
