"""Functions of one element: vkconv/ops/unary.py, activations.py, clip.py, unary_int.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.ops.activation_codes import Activation
from vkconv.ops.unary_int import IntegerFunction

SHADERS = Path(__file__).parents[2] / "shaders"

#: op_type, attributes, smallest and largest argument of interest
FUNCTIONS = [
    ("Abs", {}, -9, 9),
    ("Neg", {}, -9, 9),
    ("Sign", {}, -2, 2),
    ("Sqrt", {}, 0, 100),
    ("Exp", {}, -10, 10),
    ("Log", {}, 0.01, 20),
    ("Reciprocal", {}, 0.1, 9),
    ("Floor", {}, -5, 5),
    ("Ceil", {}, -5, 5),
    ("Round", {}, -5, 5),
    ("Sigmoid", {}, -12, 12),
    ("Tanh", {}, -6, 6),
    ("Erf", {}, -4, 4),
    ("Softplus", {}, -12, 12),
    ("Softsign", {}, -9, 9),
    ("Mish", {}, -12, 12),
    ("HardSwish", {}, -6, 6),
    ("Relu", {}, -3, 3),
    ("LeakyRelu", {}, -3, 3),
    ("LeakyRelu", {"alpha": 0.3}, -3, 3),
    ("Elu", {"alpha": 1.5}, -6, 6),
    ("Selu", {}, -6, 6),
    ("Selu", {"alpha": 2.0, "gamma": 1.5}, -6, 6),
    ("Celu", {"alpha": 0.7}, -6, 6),
    ("Celu", {"alpha": -0.7}, -2, 2),
    ("ThresholdedRelu", {"alpha": 0.5}, -2, 2),
    ("HardSigmoid", {}, -6, 6),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.1}, -6, 6),
    ("Gelu", {}, -6, 6),
    ("Gelu", {"approximate": "tanh"}, -6, 6),
    ("Swish", {}, -12, 12),
    ("Swish", {"alpha": 1.7}, -12, 12),
]

OPSETS = {
    "Relu": (9, 13, 14),
    "LeakyRelu": (9, 16),
    "Elu": (9, 22),
    "Selu": (9, 22),
    "Celu": (12, 28),
    "Abs": (9, 13),
    "HardSigmoid": (9, 22),
    "Clip": (9, 11, 12, 13),
}

ENDS = [30, -30, 88, -88, 1e4, -1e4, 3e38, -3e38, np.inf, -np.inf, np.nan]
MIDDLE = [0, -0.0, 1e-30, -1e-30, 0.5, 1.5, 2.5, -0.5, -1.5, 1, -1, 1 + 2**-20, 1 - 2**-20]
SPECIAL = np.array([*ENDS, *MIDDLE], np.float32)

CASES = [
    Case(op, (random(*shape, low=low, high=high),), attributes)
    for op, attributes, low, high in FUNCTIONS
    for shape in [(1, 5, 7, 3), (17,), (4, 16), ()]
]
CASES += [
    Case(op, (random(2, 3, 5),), attributes, opset=opset)
    for op, attributes, _, _ in FUNCTIONS
    for opset in OPSETS.get(op, ())
]
CASES += [
    Case("Clip", (random(3, 5, 7),), {"min": -0.5, "max": 0.75}, opset=6),
    Case("Clip", (random(3, 5, 7),), {"max": 0.75}, opset=9),
    Case("Clip", (random(3, 5, 7),), opset=9),
    Case("Clip", (random(3, 5, 7), np.float32(-0.5), np.float32(0.25)), constant=(1, 2), opset=11),
    Case("Clip", (random(3, 5, 7), None, np.float32(0.25)), constant=(2,)),
    Case("Clip", (random(3, 5, 7), np.float32(-0.5)), constant=(1,)),
    Case(
        "Clip",
        (random(3, 5, 7), np.float32(0.5), np.float32(-0.5)),
        constant=(1, 2),
        name="crossed",
    ),
    Case(
        "Clip",
        (random(5, 7, low=-9, high=9, dtype="int32"), np.int32(-3), np.int32(4)),
        constant=(1, 2),
    ),
    Case("Clip", (random(5, 7, low=-9, high=9, dtype="int32"), None, np.int32(4)), constant=(2,)),
    Case("Relu", (random(5, 7, low=-9, high=9, dtype="int32"),)),
    Case("Abs", (random(5, 7, low=-9, high=9, dtype="int32"),)),
    Case("Neg", (random(5, 7, low=-9, high=9, dtype="int32"),)),
    Case("Sign", (random(5, 7, low=-9, high=9, dtype="int32"),)),
    Case("Not", (random(5, 7, dtype="bool"),)),
    Case("Not", (random(dtype="bool"),)),
]
FEATURE_MAPS = [
    (1, 8, 3, 5),
    (2, 5, 7, 3),
    (3, 3, 17),
    (1, 6, 2, 3, 5),
    (1, 1, 1, 1),
    (2, 1001, 1, 1),
]
C4_CASES = [
    Case(op, (random(*shape, low=low, high=high),), attributes, layout="c4")
    for op, attributes, low, high in FUNCTIONS
    for shape in (FEATURE_MAPS if op in ("Relu", "Exp", "Sigmoid") else FEATURE_MAPS[1:2])
]
C4_CASES.append(
    Case("Clip", (random(1, 5, 3, 3), np.float32(0.5), np.float32(1)), constant=(1, 2), layout="c4")
)
SPECIAL_CASES = [
    Case(op, (SPECIAL,), attributes, name="special") for op, attributes, _, _ in FUNCTIONS
]
HALVES = [
    Case(op, (random(3, 5, 7, low=low, high=high, dtype="float16"),), attributes)
    for op, attributes, low, high in FUNCTIONS
    if op in ("Abs", "Relu", "LeakyRelu", "Exp", "Sigmoid", "Tanh", "Erf", "Sqrt", "Softplus")
]
EMPTY = [Case("Relu", (random(2, 0, 3),)), Case("Not", (random(0, dtype="bool"),))]


@pytest.mark.parametrize("case", CASES + HALVES + EMPTY, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + C4_CASES + HALVES + EMPTY, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", SPECIAL_CASES, ids=str)
def test_special_values(case: Case) -> None:
    """Zeros, infinities, NaN, and numbers at the ends of float32's range."""
    check_device(case)


def test_wide_ranges() -> None:
    """Every magnitude that float32 has, for functions that keep to a relative error."""
    magnitudes = np.geomspace(1.2e-38, 3e38, 4096).astype(np.float32)
    for op in ("Sqrt", "Log", "Reciprocal", "Abs", "Tanh", "Erf", "Softsign", "Sigmoid"):
        check_device(Case(op, (magnitudes,), name="wide"))


def test_log_beside_one() -> None:
    """The built-in log loses all digits there."""
    near = np.concatenate([1 + np.geomspace(1e-7, 0.3, 500), 1 - np.geomspace(1e-7, 0.3, 500)])
    check_device(Case("Log", (near.astype(np.float32)[None, :],)))


def test_codes_agree_with_the_shader() -> None:
    text = (SHADERS / "include" / "activations.glsl").read_text()
    found = {n: int(c) for n, c in re.findall(r"^#define ACT_(\w+) (\d+)", text, re.MULTILINE)}
    assert found == {a.name: a.value for a in Activation}


def test_integer_codes_agree_with_the_shader() -> None:
    text = (SHADERS / "unary_int.comp").read_text()
    found = {n: int(c) for n, c in re.findall(r"^#define KIND_(\w+) (\d+)", text, re.MULTILINE)}
    assert found == {f.name: f.value for f in IntegerFunction}
