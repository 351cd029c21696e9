"""Bits of integers, classes of floats, and Shrink: bitwise.py, float_classes.py, shrink.py of
vkconv/ops."""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from pathlib import Path

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.ops.bitwise import Bitwise
from vkconv.ops.float_classes import FloatClass

SHADERS = Path(__file__).parents[2] / "shaders"
DTYPES = ("int32", "int16", "int8", "uint16", "uint8")


def _bits(*shape: int, dtype: str, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(dtype)
    generator = np.random.default_rng([seed, *shape])
    return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


SHAPES = [((3, 5), (3, 5)), ((2, 3, 5), (5,)), ((4, 1, 3), (1, 7, 1)), ((), (6,)), ((17,), (17,))]
CASES = [
    Case(op, (_bits(*a, dtype=dtype), _bits(*b, dtype=dtype, seed=1)))
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    for dtype in DTYPES
    for a, b in (SHAPES if dtype == "int32" else SHAPES[1:2])
]
CASES += [Case("BitwiseNot", (_bits(3, 7, dtype=dtype),)) for dtype in DTYPES]
SHIFTS = [
    Case(
        "BitShift",
        (
            _bits(4, 5, dtype=dtype),
            random(5, high=np.dtype(dtype).itemsize * 8, low=0, dtype=dtype),
        ),
        {"direction": direction},
        opset=opset,
    )
    for dtype, opset in [("uint8", 11), ("uint16", 28), ("int8", 28), ("int16", 28), ("int32", 28)]
    for direction in ("LEFT", "RIGHT")
]
FAR_SHIFTS = [
    Case(
        "BitShift",
        (np.array([1, -1, 127, -128, 64], "int8"), np.array([8, 9, -1, 100, 7], "int8")),
        {"direction": direction},
        name="far",
    )
    for direction in ("LEFT", "RIGHT")
]
FLOATS = np.array([0, -0.0, 1, -3e38, np.inf, -np.inf, np.nan, -np.nan, 1e-45], np.float32)
CLASSES = [
    Case("IsNaN", (x,), opset=o) for x in (FLOATS, FLOATS.astype("float16")) for o in (13, 20)
]
CLASSES += [
    Case("IsInf", (FLOATS,), {"detect_negative": n, "detect_positive": p}, opset=o)
    for n in (0, 1)
    for p in (0, 1)
    for o in (10, 20)
]
SHRINKS = [
    Case("Shrink", (random(*shape),), given, layout=layout)
    for shape, layout in [((3, 5), "linear"), ((2, 5, 3, 7), "c4"), ((16,), "linear")]
    for given in ({}, {"lambd": 0.3, "bias": 0.25})
]
ON_HOST = [
    Case("BitShift", (np.array([1, 2, 1 << 40], "uint64"),) * 2, {"direction": "LEFT"}, 11),
    Case("BitwiseAnd", (_bits(3, dtype="uint32"), _bits(3, dtype="uint32", seed=2))),
    Case("BitwiseXor", (_bits(3, dtype="int64"), _bits(3, dtype="int64", seed=2))),
]
EMPTY = [Case("BitwiseNot", (np.zeros((2, 0), "int32"),)), Case("IsNaN", (random(0, 3),))]


@pytest.mark.parametrize("case", CASES + SHIFTS[:4] + CLASSES + SHRINKS + EMPTY, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", SHIFTS + FAR_SHIFTS, ids=str)
def test_shifts(case: Case) -> None:
    """By what Python's integers, which have all bits, say."""
    x, amounts = np.broadcast_arrays(*case.inputs)
    bits = x.dtype.itemsize * 8
    for value, amount, y in zip(x.flat, amounts.flat, case.expected()[0].flat, strict=True):
        far = not 0 <= amount < bits
        if case.attributes["direction"] == "RIGHT":
            exact = (-1 if value < 0 else 0) if far else int(value) >> int(amount)
        else:
            exact = 0 if far else int(value) << int(amount)
        assert (exact - int(y)) % 2**bits == 0


@pytest.mark.parametrize("case", CASES + SHIFTS + FAR_SHIFTS + CLASSES + SHRINKS + EMPTY, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", ON_HOST, ids=str)
def test_on_host(case: Case) -> None:
    check_device(case, where="host")


@pytest.mark.parametrize(
    "shader,prefix,codes",
    [("bitwise.comp", "BITWISE", Bitwise), ("classify.comp", "CLASS", FloatClass)],
)
def test_codes_agree_with_the_shader(
    shader: str, prefix: str, codes: type[IntEnum] | type[IntFlag]
) -> None:
    found = re.findall(
        rf"^#define {prefix}_(\w+) (\d+)", (SHADERS / shader).read_text(), re.MULTILINE
    )
    assert {name: int(code) for name, code in found} == {c.name: c.value for c in codes}
