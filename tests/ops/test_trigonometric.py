"""Trigonometric and hyperbolic functions: vkconv/ops/trigonometric.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv import InferenceSession
from vkconv.ops.trigonometric import Trigonometry

INCLUDE = Path(__file__).parents[2] / "shaders" / "include" / "trigonometry.glsl"

#: op_type, smallest and largest argument of interest
FUNCTIONS = [
    ("Sin", -9, 9),
    ("Cos", -9, 9),
    ("Tan", -1.5, 1.5),
    ("Asin", -1, 1),
    ("Acos", -1, 1),
    ("Atan", -20, 20),
    ("Sinh", -10, 10),
    ("Cosh", -10, 10),
    ("Asinh", -20, 20),
    ("Acosh", 1, 20),
    ("Atanh", -1, 1),
]
NAMES = [name for name, _, _ in FUNCTIONS]

SPECIAL = np.array(
    [
        0,
        -0.0,
        1e-30,
        0.5,
        -0.5,
        1,
        -1,
        1.5,
        -1.5,
        2.5,
        1e4,
        -1e4,
        80,
        -80,
        89,
        -89,
        95,
        3e38,
        -3e38,
        np.inf,
        -np.inf,
        np.nan,
        1 - 2**-24,
        2**-24 - 1,
        1 + 2**-23,
    ],
    np.float32,
)
#: at 3e38 the reduced angle has no digits left: nothing is promised there
BOUNDED = np.where(np.abs(SPECIAL) > 1e38, np.copysign(np.float32(np.inf), SPECIAL), SPECIAL)

CASES = [
    Case(op, (random(*shape, low=low, high=high),))
    for op, low, high in FUNCTIONS
    for shape in [(1, 5, 7, 3), (17,), (4, 16), ()]
]
CASES += [Case(op, (random(2, 3, 5, low=low, high=high),), opset=9) for op, low, high in FUNCTIONS]
C4_CASES = [
    Case(op, (random(*shape, low=low, high=high),), layout="c4")
    for op, low, high in FUNCTIONS
    for shape in [(2, 5, 7, 3), (1, 8, 3)]
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + C4_CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("op", NAMES)
def test_special_values(op: str) -> None:
    x = BOUNDED if op in ("Sin", "Cos", "Tan") else SPECIAL
    check_device(Case(op, (x,), name="special"))


@pytest.mark.parametrize("op", NAMES)
def test_absolute_error(op: str) -> None:
    """2e-6 where the result is below 1, and as a share of it above; arguments up to 1e5."""
    reach = {"Sin": 1e5, "Cos": 1e5, "Tan": 1e5, "Asin": 1, "Acos": 1, "Atanh": 1}.get(op, 80)
    near = np.geomspace(1e-8, reach, 3000)
    x = np.concatenate([near, -near, np.linspace(-reach, reach, 3000)]).astype(np.float32)
    x = np.abs(x) + 1 if op == "Acosh" else x
    if op == "Atanh":
        x = x[np.abs(x) < 1]
    with InferenceSession(Case(op, (x,)).model()) as session:
        actual = session.run(None, {"input_0": x})[0].astype(np.float64)
    wide = x.astype(np.float64)
    expected = getattr(np, {"A": "arc"}.get(op[0], "") + op.lower().removeprefix("a"))(wide)
    # beside a pole the tangent is as large as the argument's distance to it is small
    slope = 1 + expected * expected if op == "Tan" else np.maximum(np.abs(expected), 1)
    assert (np.abs(actual - expected) / slope).max() < 2e-6


def test_codes_agree_with_the_shader() -> None:
    found = re.findall(r"^#define TRIG_(\w+) (\d+)", INCLUDE.read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in found} == {t.name: t.value for t in Trigonometry}
