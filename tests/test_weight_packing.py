"""Weights as the kernels read them, held against the definition, element by element."""

from __future__ import annotations

import numpy as np
import pytest

from tests.small_models import floats
from tests.test_stored_arrays import stored, was_read
from vkconv import weight_packing
from vkconv.ir import Array
from vkconv.stored_arrays import Source, StoredArray
from vkconv.weight_packing import packing


@pytest.fixture(params=["array", "file", "files", "pieces"])
def given(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the weights are; the last, read a few rows at a time."""
    if request.param == "pieces":
        monkeypatch.setattr(weight_packing, "PIECE", 100)
    return str(request.param)


def source(array: Array, given: str) -> Source:
    if given == "array":
        return array
    half = len(array) // 2
    return stored(array[:half], array[half:]) if given == "files" else stored(array)


def check(packer: str, expected: Array, sources: list[Source | None], **numbers: int) -> None:
    """The elements, over memory that held something; twice, as any thread may ask again."""
    made = packing(packer, *sources, **numbers)
    assert made.shape == expected.shape
    for _ in range(2):
        packed = np.full(made.shape, np.nan, np.float32)
        made.write(packed)
        np.testing.assert_allclose(packed, expected, rtol=1e-6, atol=1e-6)
    for item in sources:
        assert not isinstance(item, StoredArray) or not any(was_read(item))
    recipe = made.recipe
    assert recipe is not None
    again = packing(recipe.packer, *recipe.sources, **recipe.numbers)
    np.testing.assert_array_equal(again.array(), made.array())


def tiled(weight: Array, bias: Array | None, groups: int, tile: int) -> Array:
    """(M, C/group, taps) as the tiled kernels read it."""
    outputs, inputs, taps = weight.shape
    each = outputs // groups
    tiles, blocks = -(-each // tile), -(-inputs // 4)
    packed = np.zeros((groups, tiles, tile + blocks * taps * tile * 4), np.float32)
    for m in range(outputs):
        group, (row, lane) = m // each, divmod(m % each, tile)
        packed[group, row, lane] = 0 if bias is None else bias[m]
        for c in range(inputs):
            for t in range(taps):
                at = (((c // 4) * taps + t) * tile + lane) * 4 + c % 4
                packed[group, row, tile + at] = weight[m, c, t]
    return packed


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize(
    ("outputs", "inputs", "kernel", "groups", "tile"),
    [(16, 8, (1, 1), 1, 8), (18, 5, (3, 2), 2, 4), (7, 3, (3, 3), 1, 16), (12, 4, (1, 1), 3, 4)],
)
def test_tiles(
    outputs: int, inputs: int, kernel: tuple[int, int], groups: int, tile: int, dtype: str,
    given: str,
) -> None:  # fmt: skip
    weight = floats(outputs, inputs, *kernel).astype(dtype)
    bias = floats(outputs, seed=1)
    flat = weight.reshape(outputs, inputs, -1)
    numbers = {"groups": groups, "tile": tile}
    check("tiles", tiled(flat, bias, groups, tile), [source(weight, given), bias], **numbers)
    check("tiles", tiled(flat, None, groups, tile), [source(weight, given), None], **numbers)


def test_tiles_of_a_transposed_convolution(given: str) -> None:
    groups, channels, each = 2, 6, 5
    weight = floats(channels, each, 3, 2)
    flat = np.zeros((groups * each, channels // groups, 6), np.float32)
    for c in range(channels):
        group = c // (channels // groups)
        flat[group * each : (group + 1) * each, c % (channels // groups)] = weight[c].reshape(-1, 6)
    expected = tiled(flat, None, groups, 4)
    numbers = {"groups": groups, "tile": 4, "transposed": 1}
    check("tiles", expected, [source(weight, given), None], **numbers)


@pytest.mark.parametrize("edge", [2, 4])
@pytest.mark.parametrize(("outputs", "inputs", "tile"), [(8, 8, 8), (9, 5, 4), (3, 9, 16)])
def test_winograd(edge: int, outputs: int, inputs: int, tile: int, given: str) -> None:
    weight = floats(outputs, inputs, 3, 3)
    g = weight_packing.G[edge]
    transformed = np.einsum("ai,mcij,bj->mcab", g, weight.astype(np.float64), g)
    elements = (edge + 2) ** 2
    of_element = transformed.reshape(outputs, inputs, elements).transpose(2, 0, 1)[..., None]
    expected = np.concatenate([tiled(w, None, 1, tile) for w in of_element])
    check("winograd", expected, [source(weight, given)], edge=edge, tile=tile)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("depth", "columns", "first", "last", "width"),
    [(8, 12, 0, 12, 4), (5, 11, 0, 11, 4), (70, 13, 4, 11, 8), (3, 2, 0, 2, 16)],
)
def test_panels(
    depth: int, columns: int, first: int, last: int, width: int, count: int, transposed: int,
    given: str,
) -> None:  # fmt: skip
    matrices = floats(count, depth, columns)
    panels, rows4 = -(-(last - first) // width), -(-depth // 4) * 4
    expected = np.zeros((count, panels, rows4, width), np.float32)
    for column in range(first, last):
        panel, lane = divmod(column - first, width)
        expected[:, panel, :depth, lane] = matrices[:, :, column]
    laid = matrices.transpose(0, 2, 1).copy() if transposed else matrices
    numbers = {"depth": depth, "columns": columns, "first": first, "last": last, "width": width}
    numbers |= {"count": count, "transposed": transposed}
    check("panels", expected, [source(laid[0] if count == 1 else laid, given)], **numbers)
    check("panels", expected, [source(laid, given)], **numbers)


def test_a_packer_that_is_none() -> None:
    with pytest.raises(KeyError):
        packing("none", floats(1))
