"""Weights as kernels read them, packed by numpy from arrays, or straight from the model's file.

A packer takes arrays, or stored ones, and numbers. Its name with these is a recipe: a plan that is
kept says how its weights are packed, and holds none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod

import numpy as np

from vkconv.storage import Packing, Recipe
from vkconv.stored_arrays import PIECE, Array, Source, rows

#: Winograd's G by the edge m of a patch's outputs
G = {
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
    2: np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
}
#: kernels transformed at once: a product just too small for numpy's BLAS to wake its threads, which
#: would take longer than the product
COLUMNS = 768
#: rows of a matrix, times columns, that are turned within the processor's cache
_BLOCK = 1 << 15


def packing(packer: str, *sources: Source | None, **numbers: int) -> Packing:
    """What the packer of that name makes of these. Raises KeyError on a name that is none."""
    made = PACKERS[packer](*sources, **numbers)
    return replace(made, recipe=Recipe(packer, sources, numbers))


def pad_axis(array: Array, axis: int, multiple: int) -> Array:
    """The array with zeros appended along ``axis`` up to a multiple."""
    missing = -array.shape[axis] % multiple
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths)


def out_first(weight: Array, groups: int) -> Array:
    """ConvTranspose's weights (C, M/group, kernel...) as (M, C/group, kernel...)."""
    channels, group_out = weight.shape[:2]
    split = weight.reshape(groups, channels // groups, group_out, *weight.shape[2:])
    return np.swapaxes(split, 1, 2).reshape(
        groups * group_out, channels // groups, *weight.shape[2:]
    )


def tiles(
    weight: Source, bias: Array | None, *, groups: int, tile: int, transposed: int = 0
) -> Packing:
    """(M, C/group, taps...) to ``[group][tile of outputs][bias | input block][tap][output][4
    inputs]``, as the tiled kernels read it: per tile first its biases, then the weights.

    transposed: the weights are (C, M/group, taps...), as ConvTranspose has them.
    """
    taps = prod(weight.shape[2:])
    if transposed:
        in_channels, each = weight.shape[0] // groups, weight.shape[1]
    else:
        in_channels, each = weight.shape[1], weight.shape[0] // groups
    count, blocks = ceil_div(each, tile), ceil_div(in_channels, 4)

    def write(packed: Array) -> None:
        packed[:, :, :tile] = 0
        if bias is not None:
            head = pad_axis(np.asarray(bias).reshape(groups, each), 1, tile)
            packed[:, :, :tile] = head.reshape(groups, count, tile)
        whole = out_first(rows(weight, 0, weight.shape[0]), groups) if transposed else weight
        for group in range(groups):
            for first, last in _pieces(each, in_channels * taps, tile):
                part = rows(whole, group * each + first, group * each + last)
                these = packed[group, first // tile : ceil_div(last, tile), tile:]
                _write_tiles(part.reshape(last - first, in_channels, taps), these, tile)

    return Packing((groups, count, tile + blocks * taps * tile * 4), write)


def _write_tiles(kernels: Array, packed: Array, tile: int) -> None:
    """(outputs, inputs, taps) to (tiles, block x tap x output x 4 inputs)."""
    kernels = pad_axis(pad_axis(kernels, 0, tile), 1, 4)
    outputs, inputs, taps = kernels.shape
    count, blocks = outputs // tile, inputs // 4
    # axes: tile, output, block, input, tap; each number is written once, in its place
    split = kernels.reshape(count, tile, blocks, 4, taps)
    body = packed.reshape(count, blocks, taps, tile, 4)
    assert np.may_share_memory(body, packed)
    if taps == 1 and split.flags.c_contiguous and split.dtype == np.float32:
        # four numbers go from side to side: moved as one of 16 bytes, that is 4 times faster
        fours = split.reshape(count, tile, blocks, 4).view(np.complex128)
        body.view(np.complex128)[:, :, 0] = fours.transpose(0, 2, 1, 3)
    else:
        body[:] = split.transpose(0, 2, 4, 1, 3)


def winograd(weight: Source, *, edge: int, tile: int) -> Packing:
    """G g G^T of every kernel of (M, C, 3, 3), as ``tiles`` packs with a group for each element:
    float32 (elements, tiles of outputs, biases of zero | blocks x tile x 4 inputs).

    vec(G g G^T) = (G x G) vec(g): a product with a matrix whose columns, one a kernel, are in the
    order of the result already, so that it is written once, in its place. In float32: a sum of nine
    products is as exact as the transform of the input, which the shader makes in float32 too.
    """
    transform = np.kron(G[edge], G[edge]).astype(np.float32)
    out_channels, in_channels = weight.shape[:2]
    count, blocks = ceil_div(out_channels, tile), ceil_div(in_channels, 4)
    columns = blocks * tile * 4

    def write(packed: Array) -> None:
        packed[:, :, :tile] = 0
        # the kernels of one tile of outputs: few enough to stay in the processor's cache
        kernels = np.zeros((9, blocks, tile, 4), np.float32)
        flat = kernels.reshape(9, columns)
        for row in range(count):
            last = min((row + 1) * tile, out_channels)
            part = rows(weight, row * tile, last).reshape(-1, in_channels, 9)
            outputs = len(part)
            kernels[:, :, outputs:] = 0
            split = pad_axis(part, 1, 4).reshape(outputs, blocks, 4, 9)
            kernels[:, :, :outputs] = split.transpose(3, 1, 0, 2)
            for first in range(0, columns, COLUMNS):
                last = min(first + COLUMNS, columns)
                target = packed[:, row, tile + first : tile + last]
                np.matmul(transform, flat[:, first:last], out=target)

    return Packing((len(transform), count, tile + columns), write)


def panels(
    source: Source,
    *,
    count: int,
    depth: int,
    columns: int,
    transposed: int,
    first: int,
    last: int,
    width: int,
) -> Packing:
    """Columns from ``first`` to ``last`` of ``count`` matrices, (depth, columns) each, or of
    (columns, depth) where they are transposed: (matrices, panels, depth in whole vec4s, ``width``
    columns)."""
    number = ceil_div(last - first, width)

    def write(packed: Array) -> None:
        packed[:, :, depth:] = 0
        packed[:, -1, :, last - first - (number - 1) * width :] = 0
        if source.ndim != 2:
            whole = rows(source, 0, source.shape[0])
            shape = (-1, columns, depth) if transposed else (-1, depth, columns)
            pairs: list[tuple[Source, Array]] = list(zip(whole.reshape(shape), packed, strict=True))
        else:
            pairs = [(source, packed[0])]
        for matrix, target in pairs:
            if transposed:
                _write_turned(matrix, target, depth, first, last)
            else:
                _write_panels(matrix, target, depth, first, last)

    return Packing((count, number, ceil_div(depth, 4) * 4, width), write)


def _write_panels(matrix: Source, target: Array, depth: int, first: int, last: int) -> None:
    """(depth, columns) to panels."""
    width = target.shape[2]
    for row, end in _pieces(depth, matrix.shape[1], 1):
        part = rows(matrix, row, end)
        for panel, begin in enumerate(range(first, last, width)):
            these = part[:, begin : min(begin + width, last)]
            target[panel, row:end, : these.shape[1]] = these


def _write_turned(matrix: Source, target: Array, depth: int, first: int, last: int) -> None:
    """(columns, depth) to panels. A panel's rows at a time that fit the processor's cache, side by
    side there: the columns lie a row apart, and would fall on each other in the cache."""
    width = target.shape[2]
    height = max(1, _BLOCK // width)
    block = np.empty((width, height + 16), np.float32)
    for begin, end in _pieces(last - first, depth, width):
        several = rows(matrix, first + begin, first + end)
        for start in range(begin, end, width):
            part = several[start - begin : start - begin + width]
            for row in range(0, depth, height):
                these = part[:, row : row + height]
                held = block[: len(these), : these.shape[1]]
                held[:] = these
                target[start // width, row : row + these.shape[1], : len(these)] = held.T


def _pieces(count: int, row: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Ranges of ``count`` rows of ``row`` elements that fit the processor's cache, of a multiple
    each."""
    step = max(PIECE // (4 * max(row, 1)) // multiple, 1) * multiple
    for first in range(0, count, step):
        yield first, min(first + step, count)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


#: by name, as recipes have them
PACKERS: dict[str, Callable[..., Packing]] = {
    "tiles": tiles,
    "winograd": winograd,
    "panels": panels,
}
