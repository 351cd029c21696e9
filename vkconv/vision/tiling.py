"""Large pictures in tiles: overlap-tile, as U-Net (Ronneberger, Fischer, Brox 2015) sees them.

    picture  -> tiles of one size, each with a margin of context, mirrored beyond the picture
    network  -> one result a tile, of which the middle counts
    middles, side by side  -> one seamless result

A network whose outputs depend on inputs no further than the margin gives, tile by tile, what it
gives for the whole mirrored picture; and one plan serves pictures of every size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vkconv.errors import InvalidInputError

__all__ = ["margin_needed", "mirrored", "run_tiled"]

Array = NDArray[Any]
Pair = tuple[int, int]
#: from (batch, channels, height, width) to one map, or to several
Run = Callable[[Array], "Array | Sequence[Array]"]


def run_tiled(
    run: Run,
    pictures: Array,
    tile: int | Pair,
    *,
    margin: int | Pair,
    step: int = 32,
    batch: int = 1,
    unpadded: bool = False,
) -> Any:
    """The maps that ``run`` would give for whole pictures, computed tile by tile.

    run       takes (batch, c, tile height, tile width), gives (batch, k, ...) or a list of such:
              ``lambda x: session.run(None, {"images": x})[0]``
    pictures  (n, c, h, w) of any size, also smaller than a tile
    tile      height and width that ``run`` takes, in pixels
    margin    pixels on each side that are context only: no less than how far an output looks, which
              ``margin_needed`` measures; for a result as of the whole picture, a multiple of
              ``step``
    step      the network's stride: tiles begin at multiples of it, so that its grids agree
    batch     tiles at a time; the last ones are filled up
    unpadded  ``run`` gives the middle without the margin, as a network of unpadded convolutions
              does

    Maps may be of another size than the picture, as long as it is the same factor for both axes.
    Returns (n, k, h, w) times that factor, rounded up, or a list of such where ``run`` gives one.
    Raises InvalidInputError where the sizes do not fit.
    """
    grid = _Grid.of(pictures, _pair(tile), _pair(margin), step)
    if batch < 1:
        raise InvalidInputError(f"batch={batch} is not a number of tiles")
    places = grid.places(len(pictures))
    results: list[Array] = []
    is_single = True
    while chosen := list(islice(places, batch)):
        tiles = [grid.cut(pictures[index], row, column) for index, row, column in chosen]
        tiles += tiles[-1:] * (batch - len(tiles))
        found = run(np.stack(tiles))
        is_single = isinstance(found, np.ndarray)
        maps = [found] if isinstance(found, np.ndarray) else list(found)
        factors = [grid.factor(one, batch, unpadded) for one in maps]
        if not results:
            results = [
                np.empty((len(pictures), m.shape[1], *grid.result(f)), m.dtype)
                for m, f in zip(maps, factors, strict=True)
            ]
        for result, one, factor in zip(results, maps, factors, strict=True):
            for (index, row, column), values in zip(chosen, one, strict=False):
                grid.paste(result[index], values, row, column, factor, unpadded)
    return results[0] if is_single else results


def mirrored(pictures: Array, top: int, bottom: int, left: int, right: int) -> Array:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of (..., h, w).

    They may lie beyond the borders, where the picture goes on mirrored, as often as it takes. The
    pixels at the border are not repeated.
    """
    height, width = pictures.shape[-2:]
    rows = _reflected(np.arange(top, bottom), height)
    columns = _reflected(np.arange(left, right), width)
    return np.ascontiguousarray(pictures[..., rows[:, None], columns])


def margin_needed(run: Run, shape: Sequence[int], *, step: int = 32, seed: int = 0) -> int:
    """How far the outputs of ``run`` look, in pixels, rounded up to a multiple of ``step``.

    Measured: ``run`` is called on two random inputs of ``shape`` (n, c, h, w), a tile's, that
    differ at the border only; one pixel of a map beyond the last that differs, none can see what
    lies outside. Raises InvalidInputError where all of a map does: the tile is too small, or the
    network looks everywhere (a global mean, attention).
    """
    random = np.random.default_rng(seed)
    first = random.random(tuple(shape), np.float32)
    second = random.random(tuple(shape), np.float32)
    second[..., 1:-1, 1:-1] = first[..., 1:-1, 1:-1]
    reach = 0
    for a, b in zip(_maps(run(first)), _maps(run(second)), strict=True):
        changed = (np.asarray(a) != np.asarray(b)).any((0, 1))
        height, width = changed.shape
        if changed[height // 2, width // 2]:
            raise InvalidInputError(
                f"an output depends on all of a tile of {shape[2]}x{shape[3]} pixels: take larger "
                f"tiles, or run the network on whole pictures if it looks everywhere"
            )
        rows, columns = np.nonzero(changed)
        if rows.size:
            inwards = np.minimum.reduce([rows, height - 1 - rows, columns, width - 1 - columns])
            reach = max(reach, -(-(int(inwards.max()) + 1) * shape[2] // height))
    return -(-reach // step) * step


@dataclass(frozen=True)
class _Grid:
    """Where the tiles of pictures of ``size`` lie. All are (rows, columns) in pixels."""

    size: Pair
    tile: Pair
    margin: Pair
    #: the middle that counts: how far tiles are apart
    inner: Pair

    @classmethod
    def of(cls, pictures: Array, tile: Pair, margin: Pair, step: int) -> _Grid:
        if pictures.ndim != 4 or 0 in pictures.shape:
            raise InvalidInputError(
                f"pictures to be tiled are (n, channels, height, width), not {pictures.shape}"
            )
        if step < 1 or min(margin) < 0:
            raise InvalidInputError(f"step={step} and margin={margin} are pixels, step at least 1")
        inner = tuple((t - 2 * m) // step * step for t, m in zip(tile, margin, strict=True))
        if min(inner) < 1:
            raise InvalidInputError(
                f"a tile of {tile[0]}x{tile[1]} pixels leaves nothing between margins of "
                f"{margin[0]} and {margin[1]} that is a multiple of step={step}: take larger tiles"
            )
        return cls((pictures.shape[2], pictures.shape[3]), tile, margin, (inner[0], inner[1]))

    def places(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Picture, row and column of each middle."""
        rows, columns = (range(0, s, i) for s, i in zip(self.size, self.inner, strict=True))
        return product(range(count), rows, columns)

    def cut(self, picture: Array, row: int, column: int) -> Array:
        """The tile (c, h, w) whose middle begins there."""
        top, left = row - self.margin[0], column - self.margin[1]
        return mirrored(picture, top, top + self.tile[0], left, left + self.tile[1])

    def factor(self, found: Array, batch: int, unpadded: bool) -> Fraction:
        """Pixels of a map for each of the picture."""
        covered = [
            t - 2 * m if unpadded else t for t, m in zip(self.tile, self.margin, strict=True)
        ]
        what = f"tiles of {self.tile[0]}x{self.tile[1]} became {np.shape(found)}"
        if np.ndim(found) != 4 or found.shape[0] != batch or 0 in found.shape:
            raise InvalidInputError(f"{what}; maps of ({batch}, channels, h, w) are needed")
        factors = {Fraction(f, c) for f, c in zip(found.shape[2:], covered, strict=True)}
        if len(factors) > 1:
            raise InvalidInputError(
                f"{what}, not one multiple of {covered[0]}x{covered[1]}: "
                + (
                    "the margin is not what the network leaves out"
                    if unpadded
                    else "for a network of unpadded convolutions, say unpadded=True"
                )
            )
        factor = factors.pop()
        if any((length * factor).denominator > 1 for length in (*self.inner, *self.margin)):
            raise InvalidInputError(
                f"{what}, {factor} of the picture: margin and step have to be multiples of "
                f"{factor.denominator}"
            )
        return factor

    def result(self, factor: Fraction) -> Pair:
        height, width = (-((-s * factor) // 1) for s in self.size)
        return int(height), int(width)

    def paste(
        self, result: Array, found: Array, row: int, column: int, factor: Fraction, unpadded: bool
    ) -> None:
        """The middle of a map (k, h, w) into the result (k, H, W), as far as that goes."""
        top, left = int(row * factor), int(column * factor)
        skipped = [0 if unpadded else int(m * factor) for m in self.margin]
        height, width = (int(i * factor) for i in self.inner)
        space = result[:, top : top + height, left : left + width]
        rows, columns = space.shape[1:]
        space[...] = found[:, skipped[0] : skipped[0] + rows, skipped[1] : skipped[1] + columns]


def _reflected(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Places in a line of ``size`` that goes forth and back for ever."""
    if size == 1:
        return np.zeros_like(index)
    turned = index % (2 * size - 2)
    return np.minimum(turned, 2 * size - 2 - turned)


def _maps(found: Any) -> list[Array]:
    return [found] if isinstance(found, np.ndarray) else list(found)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
