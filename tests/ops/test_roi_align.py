"""RoiAlign and MaxRoiPool against onnxruntime, the kernels against the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv import ir
from vkconv.errors import InvalidModelError


def regions(count: int, height: int, width: int, seed: int = 0) -> ir.Array:
    """Boxes over a map and a little beyond it; their right and lower ends are the larger ones."""
    generator = np.random.default_rng([seed, count])
    ends = generator.uniform(-0.2, 1.2, (count, 2, 2)) * (width, height)
    return np.sort(ends, axis=1).reshape(count, 4).astype(np.float32)


def align(
    x: tuple[int, ...], count: int, out: tuple[int, int], opset: int = 22, **attributes: Any
) -> Case:
    scale = attributes.get("spatial_scale", 1.0)
    rois = regions(count, *x[2:]) / np.float32(scale)
    batches = random(count, low=0, high=x[0], dtype="int64")
    attributes |= {"output_height": out[0], "output_width": out[1]}
    return Case("RoiAlign", (random(*x), rois, batches), attributes, opset, reduction=16)


def pool(x: tuple[int, ...], count: int, out: tuple[int, int], scale: float = 1.0) -> Case:
    rois = np.concatenate(
        [
            random(count, 1, low=0, high=x[0], dtype="int32").astype(np.float32),
            np.round(regions(count, *x[2:])) / np.float32(scale),
        ],
        axis=1,
    )
    attributes = {"pooled_shape": list(out), "spatial_scale": scale}
    # onnxruntime knows version 1 only
    return Case("MaxRoiPool", (random(*x), rois), attributes, 21)


ALIGN = [
    align((2, 5, 13, 17), 7, (3, 4), mode=mode, sampling_ratio=ratio, **more)
    for mode in ("avg", "max")
    for ratio in (0, 2)
    for more in (
        {},
        {"coordinate_transformation_mode": "output_half_pixel"},
        {"spatial_scale": 0.25},
    )
]
ALIGN += [
    align((1, 3, 1, 1), 3, (2, 2)),
    align((1, 70, 9, 8), 1, (7, 7), sampling_ratio=3),
    align((3, 4, 20, 30), 40, (1, 1)),
    align((2, 6, 11, 12), 5, (5, 3), opset=16),
    align((2, 6, 11, 12), 5, (5, 3), opset=10),
]
POOL = [
    pool((2, 5, 13, 17), 7, (3, 4)),
    pool((1, 8, 30, 20), 9, (7, 7), 0.5),
    pool((1, 3, 1, 1), 2, (2, 3)),
]


@pytest.mark.parametrize("case", ALIGN + POOL, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", ALIGN + POOL, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", [ALIGN[0], POOL[0]], ids=str)
def test_between_convolutions(case: Case) -> None:
    check_device(case.but(layout="c4"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 1e6])
@pytest.mark.parametrize("column", [0, 3])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_regions_that_are_none(value: float, column: int, mode: str) -> None:
    """Whatever the result is, it comes soon, and nothing outside x was read."""
    case = align((2, 5, 13, 17), 7, (3, 4), mode=mode)
    rois = np.array(case.inputs[1])
    rois[::2, column] = value
    check_device(case.but(inputs=(case.inputs[0], rois, case.inputs[2])))
    pooled = pool((2, 5, 13, 17), 7, (3, 4))
    rois = np.array(pooled.inputs[1])
    rois[::2, column + 1] = value
    check_device(pooled.but(inputs=(pooled.inputs[0], rois)))


def test_batch_indices_are_clamped() -> None:
    case = ALIGN[0]
    indices = np.array([0, 1, 2, -1, 2**31 - 1, -(2**31), 1], np.int64)
    check_device(case.but(inputs=(*case.inputs[:2], indices)))
    rois = np.array(POOL[0].inputs[1])
    rois[:, 0] = [0, 1, 2, -1, 1e30, np.nan, np.inf]
    check_device(POOL[0].but(inputs=(POOL[0].inputs[0], rois)))


def test_no_regions() -> None:
    for case in (ALIGN[0], POOL[0]):
        check_device(case.but(inputs=(case.inputs[0], *(a[:0] for a in case.inputs[1:]))))


@pytest.mark.parametrize(
    "case",
    [
        ALIGN[0].but(attributes={"mode": "sum"}),
        ALIGN[0].but(attributes={"output_height": 0}),
        ALIGN[0].but(inputs=(*ALIGN[0].inputs[:2], np.zeros(6, np.int64))),
        POOL[0].but(attributes={"pooled_shape": [2]}),
        POOL[0].but(inputs=(POOL[0].inputs[0], random(3, 4))),
    ],
    ids=str,
)
def test_bad_nodes_are_refused(case: Case) -> None:
    with pytest.raises(InvalidModelError):
        case.types()
