"""Mod of floats and of narrow integers: float_mod.py and arithmetic.py of vkconv/ops."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random

SPECIAL = np.array(
    [0, -0.0, 1, -1, 3.5, -3.5, 1e30, -1e30, 3e38, 1e-38, 1e-44, np.inf, -np.inf, np.nan, 0.1, 7],
    np.float32,
)
PAIRS = np.meshgrid(SPECIAL, SPECIAL)

SIGNED = [
    Case(
        "Mod",
        (random(3, 7, low=-99, high=99, dtype=dtype), random(7, low=-9, high=0, dtype=dtype)),
        {"fmod": fmod},
        13,
    )
    for dtype in ("int8", "int16")
    for fmod in (0, 1)
]
UNSIGNED = [
    Case("Mod", (random(3, 7, high=99, low=0, dtype=d), random(3, 1, low=1, high=9, dtype=d)))
    for d in ("uint8", "uint16")
]
FLOATS = [
    Case("Mod", (random(*a, low=-50, high=50), random(*b, seed=1)), {"fmod": 1}, 13)
    for a, b in [((3, 7), (3, 7)), ((2, 3, 5), (5,)), ((4, 1, 3), (1, 7, 1)), ((), (6,))]
]
FLOORED = [c.but(attributes={"fmod": 0}, opset=28) for c in FLOATS]
C4 = FLOATS[0].but(inputs=(random(2, 5, 3, 3), random(1, 5, 1, 1)), layout="c4")


@pytest.mark.parametrize("case", SIGNED + UNSIGNED + FLOATS, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", [*SIGNED, *UNSIGNED, *FLOATS, *FLOORED, C4], ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("fmod", [0, 1])
def test_special_values(fmod: int) -> None:
    """Quotients up to 2^250, denormals, infinities, NaN, division by zero."""
    normal = np.where(np.abs(PAIRS) < 1e-37, 0, PAIRS).astype(np.float32)
    check_device(Case("Mod", (normal[0], normal[1]), {"fmod": fmod}, 28, name="special"))


def test_exact() -> None:
    a, b = random(1000, low=-1e6, high=1e6), random(1000, low=0.001, high=3, seed=1)
    case = Case("Mod", (a, b), {"fmod": 1})
    exact = np.fmod(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    assert np.array_equal(case.expected()[0], exact)
    check_device(case)
