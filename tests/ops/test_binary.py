"""Functions of two elements: vkconv/ops/binary.py, arithmetic.py, comparison.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import linear_walk

INCLUDE = Path(__file__).parents[2] / "shaders" / "include" / "binary_functions.glsl"

#: what is broadcast against what: the same shape, scalars, channels, rows, columns, both ways,
#: ranks apart
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 5, 7, 3), (2, 5, 7, 3)),
    ((1, 8, 4, 6), (1, 8, 4, 6)),
    ((2, 5, 7, 3), ()),
    ((), (17,)),
    ((2, 5, 7, 3), (1,)),
    ((2, 5, 7, 3), (5, 1, 1)),
    ((2, 8, 3, 4), (1, 8, 1, 1)),
    ((2, 5, 7, 4), (7, 4)),
    ((2, 5, 7, 3), (1, 1, 7, 1)),
    ((2, 5, 1, 3), (1, 5, 7, 1)),
    ((1, 3, 5, 5, 2), (1, 3, 1, 1, 2)),
    ((15, 1), (1, 17)),
    ((3, 1, 5, 1, 7, 1), (1, 2, 1, 3, 1, 2)),
    ((), ()),
    ((1000, 3), (3,)),
    ((2, 0, 3), (3,)),
    ((16,), (4, 1)),
]
C4_SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 5, 7, 3), (2, 5, 7, 3)),
    ((1, 8, 4, 6), (1, 8, 4, 6)),
    ((2, 8, 4, 6), (2, 8, 1, 1)),
    ((2, 5, 3, 7), (2, 5, 1, 1)),
    ((2, 5, 3, 7), (2, 1, 3, 7)),
    ((2, 8, 3, 7), (1, 1, 3, 7)),
    ((2, 5, 3, 7), (1, 1, 1, 1)),
    ((2, 5, 3, 7), (1, 5, 3, 1)),
    ((2, 5, 3, 7), (1, 5, 1, 7)),
    ((3, 7, 11), (3, 7, 1)),
    ((2, 6, 2, 3, 5), (2, 6, 2, 3, 5)),
    ((2, 6, 2, 3, 5), (2, 6, 1, 3, 1)),
    ((2, 8, 2, 3, 5), (2, 1, 2, 1, 5)),
    ((2, 1, 3, 3), (2, 1, 3, 3)),
]


def pair(
    op: str, a: tuple[int, ...], b: tuple[int, ...], dtype: str = "float32", **more: Any
) -> Case:
    low, high = (0.2, 3.0) if op in ("Pow", "Div") and dtype.startswith("float") else (-4, 5)
    second = random(*b, low=low, high=high, dtype=dtype, seed=1)
    if dtype == "int32" and op in ("Div", "Mod"):
        second = np.where(second == 0, 3, second).astype(np.int32)
    if dtype == "int32" and op == "Pow":
        second = np.abs(second).astype(np.int32)
    return Case(op, (random(*a, low=low, high=high, dtype=dtype), second), **more)


CASES = [pair(op, a, b) for op in ("Add", "Less") for a, b in SHAPES]
CASES += [pair("Add", b, a) for a, b in SHAPES]
CASES += [
    pair(op, (2, 5, 7, 3), b)
    for op in (
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Max",
        "Min",
        "Equal",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
    )
    for b in [(2, 5, 7, 3), (3,)]
]
CASES += [
    pair(op, (3, 5, 7), b, "int32")
    for op in (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
    )
    for b in [(3, 5, 7), (7,), ()]
]
CASES += [
    pair(op, (3, 5, 8), b, "bool", opset=opset)
    for op in ("And", "Or", "Xor")
    for b in [(3, 5, 8), (5, 1)]
    for opset in (9, 28)
]
CASES += [
    pair("Mod", (5, 7), (5, 7), "int32", attributes={"fmod": 1}),
    pair("Add", (3, 5), (3, 5), opset=9),
    pair("Equal", (3, 5), (3, 5), "int32", opset=9),
    pair("Less", (3, 5), (3, 5), opset=9),
    pair("Equal", (3, 5), (3, 5), "int64"),
    pair("Equal", (3, 5), (3, 5), "bool"),
    Case("PRelu", (random(2, 5, 7, 3), random(5, 1, 1, seed=1))),
    Case("PRelu", (random(2, 5, 7, 3), random(5, 1, 1, seed=1)), opset=9, constant=(1,)),
    Case("PRelu", (random(2, 5, 7, 3), random(1, seed=1)), constant=(1,)),
    Case("PRelu", (random(2, 5, 7, 4), random(2, 5, 7, 4, seed=1))),
    Case("PRelu", (random(5, 7, low=-5, high=5, dtype="int32"), np.array([3], np.int32))),
    Case("Pow", (random(3, 5, 7), np.array(2, np.float32)), constant=(1,)),
    Case("Pow", (random(3, 5, 7), np.array(3, np.int64)), constant=(1,), name="cube"),
    Case("Pow", (random(3, 5, 7, low=0), np.array(0.5, np.float32)), constant=(1,)),
    Case("Pow", (random(3, 5, 7, low=0.1), np.array([-1, -2.5, 0, 1, 2, 3, 7.5], np.float32))),
    Case("Pow", (random(3, 5, 7), np.array([-1, -2, 0, 1, 2, 3, 7], np.float32))),
    Case("Add", (random(1, 3, 5, 5, 2), random(1, 3, 5, 5, 2, seed=1)), constant=(1,), name="grid"),
    Case("Mul", (random(1, 3, 5, 5, 2), np.array(8, np.float32)), constant=(1,)),
    Case("Sub", (np.array(1, np.float32), random(3, 17)), constant=(0,)),
]
for op in ("Max", "Min", "Sum", "Mean"):
    CASES += [
        Case(op, (random(3, 5, 7), random(3, 5, 7, seed=1), random(3, 5, 7, seed=2))),
        Case(
            op,
            (random(1, 5, 1), random(3, 1, 7, seed=1), random(7, seed=2), random(seed=3)),
            opset=9,
        ),
        Case(op, (random(3, 8), random(8, seed=1), random(3, 1, seed=2)), constant=(1,)),
    ]
CASES += [
    Case("Max", tuple(random(5, 7, low=-9, high=9, dtype="int32", seed=i) for i in range(3))),
]
CASES += [
    pair(op, (3, 5, 7), (7,), "float16") for op in ("Add", "Mul", "Div", "Pow", "Max", "Less")
]
ONE_INPUT = [Case(op, (random(3, 5, 7),)) for op in ("Max", "Min", "Sum", "Mean")]

C4_CASES = [pair("Add", a, b, layout="c4") for a, b in C4_SHAPES]
C4_CASES += [pair("Div", b, a, layout="c4") for a, b in C4_SHAPES]
C4_CASES += [
    pair("Mul", (2, 5, 7, 3), b, constant=(1,), layout="c4")
    for b in [
        (),
        (1,),
        (3,),
        (7, 1),
        (5, 1, 1),
        (1, 5, 1, 1),
        (5, 7, 3),
        (2, 5, 7, 3),
        (2, 1, 1, 1),
    ]
]
C4_CASES += [
    Case("PRelu", (random(2, 5, 7, 3), random(5, 1, 1, seed=1)), constant=(1,), layout="c4"),
    Case("PRelu", (random(2, 8, 9), random(1, 8, 1, seed=1)), constant=(1,), layout="c4"),
    Case("Pow", (random(2, 5, 7, 3), np.array(2, np.int32)), constant=(1,), layout="c4"),
    Case("Sum", tuple(random(2, 5, 3, 3, seed=i) for i in range(4)), layout="c4"),
    Case("Mean", tuple(random(2, 5, 3, 3, seed=i) for i in range(3)), layout="c4"),
    Case("Max", (random(2, 5, 3, 3), random(2, 5, 1, 1), random(1, 1, 3, 3, seed=1)), layout="c4"),
    Case("Less", (random(2, 5, 3, 3), random(2, 5, 3, 3, seed=1)), layout="c4"),
]

INFINITY = np.float32(np.inf)
SPECIAL = np.array([0, -0.0, 1, -1, 2.5, -3, INFINITY, -INFINITY, np.nan], np.float32)


@pytest.mark.parametrize("case", CASES + ONE_INPUT, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + C4_CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize(
    "op", ["Add", "Mul", "Div", "Max", "Min", "Less", "Equal", "GreaterOrEqual"]
)
def test_special_values(op: str) -> None:
    check_device(Case(op, (SPECIAL[:, None], SPECIAL[None, :])))


def test_power_of_special_values() -> None:
    bases = np.array([0, 1, -1, 2.5, -3, 1e-20, 1e20, INFINITY, np.nan], np.float32)
    exponents = np.array([0, 1, -1, 2, 3, -2, 0.5, 1.5, INFINITY, np.nan], np.float32)
    check_device(Case("Pow", (bases[:, None], exponents[None, :])))


def test_integers_that_c_leaves_undefined() -> None:
    """No model may stop a driver by dividing by zero."""
    least = np.array([-(2**31), -(2**31), 7, -7, 0], np.int32)
    for op in ("Div", "Mod"):
        check_device(Case(op, (least, np.array([-1, 0, 0, 0, 0], np.int32))))


@pytest.mark.parametrize(
    "case",
    [
        pair("Add", (5, 7), (7,), "int64"),
        Case("Pow", (random(5, low=1, high=9, dtype="int32"), random(5, low=0))),
        Case("Add", (random(2, 1, 2, 1, 2, 1, 2), random(1, 2, 1, 2, 1, 2, 1)), name="seven"),
    ],
    ids=str,
)
def test_host(case: Case) -> None:
    """What the kernel does not take: float remainders, int64, mixed types, more than six
    dimensions."""
    check_reference(case)
    check_device(case, where="host")


def test_neighbouring_dimensions_merge() -> None:
    assert linear_walk((2, 5, 7, 3), [(2, 5, 7, 3), ()]).size == (210,)
    assert linear_walk((2, 5, 7, 3), [(2, 5, 7, 3), (5, 1, 1)]).size == (2, 5, 21)
    assert linear_walk((2, 5, 7, 3), [(2, 5, 7, 3), (7, 3)]).size == (10, 21)
    assert linear_walk((), [(), ()]).size == ()


def test_codes_agree_with_the_shader() -> None:
    found = re.findall(r"^#define BINARY_(\w+) (\d+)", INCLUDE.read_text(), re.MULTILINE)
    assert {n: int(c) for n, c in found} == {b.name: b.value for b in Binary}
