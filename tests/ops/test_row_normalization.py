"""LayerNormalization, RMSNormalization, LpNormalization: vkconv/ops/row_normalization.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.ops.row_normalization import Norm

SHADER = Path(__file__).parents[2] / "shaders" / "normalize_rows.comp"


def _layer(shape: tuple[int, ...], axis: int, *scales: tuple[int, ...], **more: object) -> Case:
    factors = tuple(random(*s, seed=i + 1) for i, s in enumerate(scales))
    constant = tuple(range(1, 1 + len(factors)))
    return Case(
        "LayerNormalization", (random(*shape), *factors), {"axis": axis}, 17, constant, reduction=64
    ).but(**more)


LAYERS = [
    _layer((3, 7, 32), -1, (32,), (32,)),
    _layer((3, 7, 32), -1, (32,)),
    _layer((5, 3), -1, (3,), (3,)),
    _layer((5, 17), -1, (17,), (17,)),
    _layer((2, 3, 4, 5), 1, (3, 4, 5), (3, 4, 5)),
    _layer((2, 3, 4, 5), -2, (5,), (4, 1)),
    _layer((2, 3, 4, 5), 2, (4, 5), (1,), constant=()),
    _layer((2, 3, 4, 8), 2, (8,), (4, 1), constant=()),
    _layer((2, 3, 20), -1, (1, 1, 20), (20,)),
    _layer((4, 12000), -1, (12000,), (12000,)),
    _layer((2, 3, 32), -1, (32,), (32,), outputs=3),
    _layer((2, 3, 5), 1, (3, 5), (3, 5), outputs=3),
    _layer((2, 3, 5), 1, (3, 5), outputs=2, name="mean"),
]
LAYERS.append(
    LAYERS[0].but(inputs=tuple(x.astype("float16") for x in LAYERS[0].inputs), name="half")
)
DIFFERING = _layer((2, 3, 8), -1, (3, 8), (2, 3, 8))
RMS = [
    Case("RMSNormalization", (random(*shape), random(*scale, seed=1)), {"axis": axis}, 23, (1,))
    for shape, axis, scale in [
        ((3, 7, 32), -1, (32,)),
        ((3, 5), 0, (3, 5)),
        ((2, 3, 4, 5), 2, (5,)),
        ((2, 65), -1, (65,)),
    ]
]
LP = [
    Case("LpNormalization", (random(*shape),), {"axis": axis, "p": p}, opset)
    for shape, axis in [((3, 7), -1), ((3, 40), 1), ((2, 5, 3, 7), 1), ((20, 3), 0), ((9,), 0)]
    for p in (1, 2)
    for opset in (1, 22)
]
ZEROS = [
    Case("LpNormalization", (np.zeros((2, n), np.float32),), {"p": p})
    for p in (1, 2)
    for n in (5, 32)
]
EMPTY = [_layer((0, 8), -1, (8,), (8,), outputs=3), Case("LpNormalization", (random(0, 3),))]


@pytest.mark.parametrize("case", LAYERS + RMS + LP + [DIFFERING], ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", LAYERS + RMS + LP + ZEROS + EMPTY, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_scale_that_differs_between_rows() -> None:
    check_device(DIFFERING, where="host")


@pytest.mark.parametrize("length", [64, 63, 10000])
def test_large_mean(length: int) -> None:
    """The mean of squares minus the square of the mean would leave nothing."""
    x = random(3, length) + np.float32(2000)
    ones = np.ones(length, np.float32)
    case = Case("LayerNormalization", (x, ones, 0 * ones), {}, 17, (1, 2), reduction=length)
    check_device(case)


def test_codes_agree_with_the_shader() -> None:
    found = re.findall(r"^#define NORM_(\w+) (\d+)", SHADER.read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in found} == {n.name: n.value for n in Norm}
