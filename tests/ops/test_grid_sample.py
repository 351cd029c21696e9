"""GridSample against onnxruntime and torch, and the kernel against the reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv.errors import InvalidModelError

MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection")
TORCH = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
#: (x, output) shapes
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 5, 7, 6), (4, 9)),
    ((1, 4, 4, 5, 3), (2, 3, 7)),
]


def sample(x: tuple[int, ...], out: tuple[int, ...], low: float = -2.5, **attributes: Any) -> Case:
    grid = random(x[0], *out, len(out), low=low, high=-low)
    return Case("GridSample", (random(*x), grid), attributes, reduction=16)


ALL = [
    sample(x, out, mode=mode, padding_mode=padding, align_corners=align)
    for (x, out), mode, padding, align in itertools.product(SHAPES, MODES, PADDINGS, (0, 1))
]
OTHERS = [
    sample((1, 3, 1, 1), (3, 3)),
    sample((1, 3, 1, 1), (3, 3), padding_mode="reflection", align_corners=1),
    sample((1, 3, 1, 1), (3, 3), padding_mode="reflection", mode="cubic"),
    sample((1, 1, 5, 1), (1, 1), padding_mode="border", mode="nearest"),
    sample((3, 70, 6, 5), (5, 7)),
    sample((1, 8, 64, 64), (33, 65), low=-1.1, mode="cubic"),
    sample((2, 16, 9, 9), (40, 3), padding_mode="reflection"),
]
LINE = [sample((2, 5, 9), (7,), mode=mode) for mode in MODES]
CASES = ALL + OTHERS + LINE


def is_judged_by_onnxruntime(case: Case) -> bool:
    """It has no cubic sampling of volumes, and none of lines."""
    rank = case.inputs[0].ndim
    return rank == 4 or (rank == 5 and case.attributes.get("mode") != "cubic")


@pytest.mark.parametrize("case", [c for c in CASES if is_judged_by_onnxruntime(c)], ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", [c for c in ALL if is_judged_by_onnxruntime(c)], ids=str)
def test_reference_against_torch(case: Case) -> None:
    x, grid = (torch.from_numpy(a) for a in case.inputs)
    a = case.attributes
    align = bool(a["align_corners"])
    y = torch.nn.functional.grid_sample(x, grid, TORCH[a["mode"]], a["padding_mode"], align)
    assert_close(case.expected()[0], y.numpy(), 16)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_a_line_is_a_map_of_one_row(mode: str, padding: str) -> None:
    """With align_corners a map of one row is not moved from 0 by any coordinate."""
    attributes = dict(mode=mode, padding_mode=padding, align_corners=1)
    line = sample((2, 5, 9), (7,), **attributes)
    x, grid = line.inputs
    flat = np.concatenate([grid, np.zeros_like(grid)], axis=-1)[:, None]
    y = Case("GridSample", (x[:, :, None], flat), attributes).expected()[0]
    assert_close(line.expected()[0], y[:, :, 0], 4)


@pytest.mark.parametrize("padding", PADDINGS)
def test_cubic_volumes_are_separable(padding: str) -> None:
    """Sampling on a grid that is a product of axes is sampling along each axis."""
    attributes = dict(mode="cubic", padding_mode=padding, align_corners=0)
    x = random(1, 2, 4, 5, 3)
    z, y, w = (random(n, low=-1.6, high=1.6, seed=n) for n in (3, 2, 4))
    grid = np.stack(np.meshgrid(z, y, w, indexing="ij")[::-1], axis=-1)[None]
    found = Case("GridSample", (x, grid), attributes).expected()[0]
    expected = x
    for axis, places in ((2, z), (3, y), (4, w)):
        moved = np.moveaxis(expected, axis, -1)
        lines = moved.reshape(1, -1, moved.shape[-1])
        sampled = Case("GridSample", (lines, places[None, :, None]), attributes).expected()[0]
        expected = np.moveaxis(sampled.reshape(*moved.shape[:-1], -1), -1, axis)
    assert_close(found, expected, 64)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", [ALL[2], ALL[20], OTHERS[4]], ids=str)
def test_between_convolutions(case: Case) -> None:
    check_device(case.but(layout="c4"))


@pytest.mark.parametrize("opset", [16, 20, 22])
def test_every_version(opset: int) -> None:
    for mode in ("bilinear", "bicubic", "nearest") if opset == 16 else MODES:
        case = sample((1, 3, 5, 6), (4, 3), mode=mode).but(opset=opset)
        check_reference(case)
        check_device(case)
    default = sample((1, 3, 5, 6), (4, 3)).but(opset=opset)
    check_reference(default)


def test_constant_grid_and_constant_maps() -> None:
    check_device(ALL[2].but(constant=(1,)))
    check_device(ALL[2].but(constant=(0,)))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [1e30, -1e30, np.inf, -np.inf, np.nan, 2.0**31])
def test_coordinates_far_outside(value: float, mode: str, padding: str) -> None:
    x, grid = random(1, 5, 7, 6), random(1, 4, 5, 2, low=-1, high=1)
    grid[0, ::2, :, 0] = value
    grid[0, 1::2, ::2, 1] = value
    case = Case("GridSample", (x, grid), dict(mode=mode, padding_mode=padding), reduction=16)
    assert np.isfinite(case.expected()[0]).all()
    check_device(case)
    if padding == "zeros":
        assert not case.expected()[0][:, :, ::2].any()


def test_infinite_pixels_spread_no_further_than_their_weights() -> None:
    x = random(1, 4, 5, 5)
    x[0, 1, 2, 2] = np.inf
    grid = np.array([[[[-1.0, -1.0], [0.5, 0.5], [0.0, 0.0], [3.0, 3.0]]]], np.float32)
    check_device(Case("GridSample", (x, grid), dict(align_corners=1)))


def test_empty_results() -> None:
    check_device(Case("GridSample", (random(1, 3, 4, 4), random(1, 0, 5, 2))))
    check_device(Case("GridSample", (random(0, 3, 4, 4), random(0, 2, 5, 2))))


@pytest.mark.parametrize("grid", [(1, 4, 5, 3), (2, 4, 5, 2), (1, 4, 2), (1, 4, 5, 6, 2)])
def test_wrong_grids_are_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(InvalidModelError):
        Case("GridSample", (random(1, 3, 4, 4), random(*grid))).types()


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InvalidModelError, match="mode"):
        sample((1, 3, 4, 4), (2, 2), mode="lanczos").types()
