"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: their files in vkconv/ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import InvalidModelError

F32 = np.float32


def _zeros(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return random(*shape, low=limits.min // 2, high=limits.max // 2, dtype=dtype, seed=3)


def _scales(*shape: int) -> np.ndarray:
    return random(*shape, low=0.01, high=0.1, seed=2)


def _quantize(
    shape: tuple[int, ...], scale: tuple[int, ...], dtype: str, opset: int = 21, **attributes: Any
) -> Case:
    x = random(*shape, low=-6, high=6)
    return Case("QuantizeLinear", (x, _scales(*scale), _zeros(dtype, *scale)), attributes, opset)


def _dequantize(case: Case) -> Case:
    _, scale, zero = case.inputs
    assert zero is not None
    limits = np.iinfo(zero.dtype)
    x = random(
        *case.inputs[0].shape,
        low=limits.min,
        high=limits.max,
        dtype=zero.dtype.name,
    )
    return case.but(op_type="DequantizeLinear", inputs=(x, scale, zero))


QUANTIZE = [
    _quantize(shape, scale, dtype, opset, **given)
    for shape, scale, opset, given in [
        ((3, 7), (), 10, {}),
        ((2, 3, 5), (3,), 13, {}),
        ((2, 3, 5), (5,), 19, {"axis": -1}),
        ((7,), (7,), 13, {"axis": 0}),
        ((2, 7, 5), (2, 3, 5), 21, {"axis": 1, "block_size": 3}),
        ((6, 8), (6, 2), 23, {"axis": -1, "block_size": 4}),
        ((), (), 21, {}),
    ]
    for dtype in ("uint8", "int8")
]
WIDE = [_quantize((3, 4, 7), s, d, 21) for s in ((), (4,)) for d in ("uint16", "int16")]
OTHERS = [
    Case("QuantizeLinear", (random(3, 5), F32(0.02)), {}, 13),
    Case("QuantizeLinear", (random(3, 5), F32(0.02)), {"output_dtype": 3}, 21),
    Case("QuantizeLinear", (random(3, 5), F32(0.02), np.uint8(9)), {}, 13, (1, 2)),
    Case("DequantizeLinear", (random(3, 5, low=-99, high=99, dtype="int32"), F32(0.02)), {}, 13),
    Case("DequantizeLinear", (random(3, 5, low=0, high=99, dtype="uint8"), F32(0.02)), {}, 13),
]
DYNAMIC = [
    Case("DynamicQuantizeLinear", (x,), outputs=3, opset=11)
    for x in (
        random(3, 5, 7),
        random(17, low=1, high=3),
        random(4, 4, low=-3, high=-1),
        np.zeros((2, 3), F32),
        random(40000),
    )
]
EMPTY = [_quantize((0, 3), (), "uint8"), _dequantize(_quantize((0, 3), (), "uint8"))]
ALL = QUANTIZE + WIDE + [_dequantize(c) for c in QUANTIZE + WIDE] + OTHERS + DYNAMIC


@pytest.mark.parametrize("case", ALL, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", ALL + EMPTY, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("target", ["uint8", "int8", "int16"])
def test_ties_and_their_neighbours(dtype: str, target: str) -> None:
    """Halves go to even; the numbers beside them to their own side. In float16 quotients are
    rounded first."""
    halves = np.arange(-300, 300) + 0.5
    scale = np.asarray(0.037, dtype)
    ties = (halves * scale.astype(np.float64)).astype(dtype)
    x = np.concatenate([ties, np.nextafter(ties, ties.dtype.type(9)), np.nextafter(ties, -ties)])
    zero = np.asarray(7, target)
    check_device(Case("QuantizeLinear", (x, scale, zero), {}, 21))


def test_saturation() -> None:
    x = np.array([1e30, -1e30, np.inf, -np.inf, 3e9, -3e9, 0, -0.0, 1e-40], F32)
    for zero in (np.uint8(3), np.int8(-3), np.uint16(5), np.int16(-5)):
        case = Case("QuantizeLinear", (x, F32(0.5), zero), {}, 21)
        limits = np.iinfo(zero.dtype)
        assert list(case.expected()[0][:4]) == [limits.max, limits.min] * 2
        check_device(case)


def test_granularity_that_does_not_fit() -> None:
    for scale, given in [
        ((4,), {}),
        ((2, 2, 5), {"block_size": 3}),
        ((2, 3, 5), {"block_size": -1}),
    ]:
        with pytest.raises(InvalidModelError):
            _quantize((2, 3, 5), scale, "int8", **given).types()
