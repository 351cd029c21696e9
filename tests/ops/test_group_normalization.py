"""Group-, Instance- and MeanVarianceNormalization: channel_statistics.py and its users in
vkconv/ops."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv import InferenceSession
from vkconv.errors import InvalidModelError
from vkconv.ops.channel_statistics import Affine

SHADER = Path(__file__).parents[2] / "shaders" / "group_moments.comp"


def _group(shape: tuple[int, ...], groups: int, opset: int = 21, **more: object) -> Case:
    count = groups if opset < 21 else shape[1]
    inputs = (random(*shape), random(count, seed=1), random(count, seed=2))
    return Case(
        "GroupNormalization", inputs, {"num_groups": groups}, opset, (1, 2), reduction=64
    ).but(**more)


GROUPS = [
    _group((2, 8, 5, 7), 2),
    _group((2, 6, 5, 7), 3),
    _group((2, 6, 5, 7), 2),
    _group((1, 15, 3, 3), 5),
    _group((1, 10, 3), 2),
    _group((3, 7, 2, 3, 5), 7),
    _group((1, 9, 2, 2), 1),
    _group((2, 6, 5, 7), 3, 18),
    _group((2, 12, 4), 4, 18, constant=()),
    _group((1, 4, 80, 80), 2),
    _group((2, 6), 2),
]
INSTANCES = [
    Case(
        "InstanceNormalization",
        (random(*shape), random(c, seed=1), random(c, seed=2)),
        {},
        o,
        (1, 2),
    )
    for shape, o in [
        ((2, 5, 7, 3), 22),
        ((1, 8, 9), 6),
        ((1, 3, 2, 3, 4), 22),
        ((2, 4, 65, 65), 22),
    ]
    for c in [shape[1]]
]
MVN = [
    Case("MeanVarianceNormalization", (random(*shape),), {} if axes is None else {"axes": axes}, 13)
    for shape, axes in [
        ((3, 5, 7, 3), None),
        ((2, 6, 4, 5), (2, 3)),
        ((2, 6, 4, 5), (1, 2, 3)),
        ((2, 6, 4, 5), (0, 1, 2, 3)),
        ((2, 5, 9), (0, -1)),
        ((2, 5, 9), (1,)),
        ((2, 3, 4, 5), (0, 2)),
        ((6, 7), (0,)),
    ]
]
C4_CASES = [c.but(layout="c4") for c in GROUPS + INSTANCES + MVN[:5] if len(c.inputs[0].shape) > 2]
ALL = GROUPS + INSTANCES + MVN


@pytest.mark.parametrize("case", ALL, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", ALL + C4_CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("layout", ["linear", "c4"])
def test_large_mean(layout: str) -> None:
    x = random(2, 6, 40, 40) + np.float32(1000) * np.arange(6, dtype=np.float32).reshape(6, 1, 1)
    ones = np.ones(6, np.float32)
    check_device(
        Case("InstanceNormalization", (x, ones, ones), {}, 22, (1, 2), reduction=1600).but(
            layout=layout
        )
    )


def test_groups_that_do_not_divide_the_channels() -> None:
    case = _group((1, 6, 3, 3), 4).but(inputs=(random(1, 6, 3, 3), random(6), random(6)))
    with pytest.raises(InvalidModelError, match="4 groups"):
        case.types()


def test_computed_scale() -> None:
    """Scale and bias that the model computes come linear, the map in C4."""
    case = _group((1, 6, 3, 3), 3, constant=(), layout="c4")
    with InferenceSession(case.model()) as session:
        assert session.run(None, case.feeds())[0].shape == (1, 6, 3, 3)
    check_device(case)


def test_codes_agree_with_the_shader() -> None:
    found = re.findall(r"^#define AFFINE_(\w+) (\d+)", SHADER.read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in found} == {a.name: a.value for a in Affine}
