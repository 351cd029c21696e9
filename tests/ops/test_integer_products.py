"""MatMulInteger, QLinearMatMul, ConvInteger, QLinearConv: integer_matmul.py, integer_conv.py of
vkconv/ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random, run_evaluator
from vkconv.errors import InvalidModelError

F32 = np.float32


def _ints(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(dtype)
    return random(*shape, low=limits.min, high=limits.max + 1, dtype=dtype, seed=seed)


def _matmul(
    a: tuple[int, ...],
    b: tuple[int, ...],
    kinds: tuple[str, str] = ("uint8", "int8"),
    *zeros: tuple[int, ...] | None,
) -> Case:
    points = [
        None if z is None else _ints(z, kind, 5 + i)
        for i, (z, kind) in enumerate(zip(zeros, kinds, strict=False))
    ]
    return Case("MatMulInteger", (_ints(a, kinds[0]), _ints(b, kinds[1], 1), *points), {}, 10)


def _qmatmul(
    a: tuple[int, ...],
    b: tuple[int, ...],
    rows: tuple[int, ...] = (),
    columns: tuple[int, ...] = (),
) -> Case:
    inputs = (
        *(_ints(a, "uint8"), random(*rows, low=0.01, high=0.02), _ints(rows, "uint8", 7)),
        *(
            _ints(b, "int8", 1),
            random(*columns, low=0.01, high=0.02, seed=3),
            _ints(columns, "int8", 9),
        ),
        *(F32(0.9), np.uint8(120)),
    )
    return Case("QLinearMatMul", inputs, {}, 10)


def _conv(
    x: tuple[int, ...], w: tuple[int, ...], w_zero: tuple[int, ...] | None = (), **attributes: Any
) -> Case:
    inputs = [_ints(x, "uint8"), _ints(w, "uint8", 1), np.uint8(128)]
    if w_zero is not None:
        inputs.append(_ints(w_zero, "uint8", 2))
    return Case("ConvInteger", tuple(inputs), attributes, 10)


def _qconv(
    case: Case, kinds: tuple[str, str] = ("uint8", "int8"), per_channel: bool = True
) -> Case:
    x, w = case.inputs[:2]
    assert x is not None and w is not None
    count = (w.shape[0],) if per_channel else ()
    inputs = (
        *(_ints(x.shape, kinds[0]), F32(0.02), _ints((), kinds[0], 2)),
        *(
            _ints(w.shape, kinds[1], 1),
            random(*count, low=0.01, high=0.03),
            np.zeros(count, kinds[1]),
        ),
        *(F32(0.8), _ints((), kinds[0], 4)),
        random(w.shape[0], low=-2000, high=2000, dtype="int32"),
    )
    return case.but(op_type="QLinearConv", inputs=inputs)


MATMULS = [
    _matmul((3, 5), (5, 7)),
    _matmul((3, 5), (5, 7), ("uint8", "uint8"), (), ()),
    _matmul((2, 9, 17), (17, 33), ("uint8", "int8"), (), (33,)),
    _matmul((2, 1, 3, 4), (5, 4, 6), ("uint8", "uint8"), ()),
    _matmul((1, 70), (70, 1), ("int8", "int8"), None, ()),
]
PER_ROW = [
    _matmul((3, 5), (5, 7), ("uint8", "int8"), (3,), (7,)),
    _matmul((2, 3, 5), (2, 5, 7), ("uint8", "int8"), (2, 3, 1), (2, 1, 7)),
    _matmul((5,), (5, 7), ("uint8", "int8"), ()),
    _matmul((3, 5), (5,), ("uint8", "int8"), ()),
]
QMATMULS = [
    _qmatmul((3, 5), (5, 7)),
    _qmatmul((2, 9, 17), (17, 33)),
    _qmatmul((9, 17), (17, 33), (), (33,)),
]
PER_ROW_QMATMULS = [
    _qmatmul((3, 5), (5, 7), (3,), (7,)),
    _qmatmul((2, 3, 5), (2, 5, 7), (2, 3, 1), ()),
]
CONVS = [
    _conv((1, 3, 7, 5), (4, 3, 3, 3)),
    _conv((2, 4, 7, 5), (6, 2, 3, 1), (), group=2, dilations=[2, 1], pads=[1, 0, 1, 0]),
    _conv((1, 3, 9, 9), (5, 3, 3, 3), (), strides=[2, 3], auto_pad="SAME_LOWER"),
    _conv((1, 4, 8, 8), (4, 1, 3, 3), None, group=4, pads=[1, 2, 0, 1]),
    _conv((2, 3, 11), (5, 3, 3), (), strides=[2], pads=[1, 1]),
    _conv((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), ()),
]
PER_CHANNEL = CONVS[1].but(inputs=(*CONVS[1].inputs[:3], _ints((6,), "uint8", 2)))
QCONVS = [_qconv(c, per_channel=p) for c in CONVS[:4] for p in (True, False)]
QCONVS += [_qconv(CONVS[0], ("int8", "int8")), _qconv(CONVS[4])]
NO_BIAS = QCONVS[0].but(inputs=QCONVS[0].inputs[:8], name="no_bias")
EMPTY = [_matmul((0, 5), (5, 7)), _matmul((3, 0), (0, 7)), _conv((0, 3, 7, 5), (4, 3, 3, 3))]


def _weights_of_seven_bits(case: Case) -> Case:
    """onnxruntime's kernels for x86 without VNNI add two products of uint8 and int8 in 16 bits,
    which saturate; halves of the weights cannot."""
    at = {"MatMulInteger": 1, "ConvInteger": 1}.get(case.op_type, 3)
    weights = case.inputs[at]
    assert weights is not None
    halves = weights // 2 if weights.dtype == np.int8 else weights
    return case.but(inputs=(*case.inputs[:at], halves, *case.inputs[at + 1 :]))


@pytest.mark.parametrize("case", MATMULS + QMATMULS + CONVS[:5] + [*QCONVS, NO_BIAS], ids=str)
def test_reference(case: Case) -> None:
    check_reference(_weights_of_seven_bits(case))


@pytest.mark.parametrize("case", MATMULS + QMATMULS + [*QCONVS[:-1], NO_BIAS], ids=str)
def test_reference_in_the_whole_range(case: Case) -> None:
    """But not the last, over one axis with a scale a channel: ONNX's evaluator takes two axes."""
    check_reference(case, run_evaluator)


@pytest.mark.parametrize(
    "case",
    MATMULS
    + PER_ROW
    + QMATMULS
    + PER_ROW_QMATMULS
    + CONVS
    + [*QCONVS, NO_BIAS, PER_CHANNEL, *EMPTY],
    ids=str,
)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", [MATMULS[2], QMATMULS[2], CONVS[1], QCONVS[0]], ids=str)
def test_constant_weights(case: Case) -> None:
    """Zero points of constants are subtracted when the plan is made, scales multiplied."""
    positions = {"MatMulInteger": (1, 3), "ConvInteger": (1, 2, 3)}.get(
        case.op_type, (1, 2, 3, 4, 5, 6, 7)
    )
    check_device(case.but(constant=positions))


def test_sums_beyond_float32() -> None:
    """Odd sums above 2^24, which float32 does not have."""
    a, b = np.full((1, 3001), 255, np.uint8), np.full((3001, 2), 127, np.int8)
    b[0, 1] = 126
    case = Case("MatMulInteger", (a, b), {}, 10)
    assert case.expected()[0][0, 0] == 3001 * 255 * 127 > 2**24
    check_device(case)


def test_shapes_that_do_not_fit() -> None:
    for case in (
        _matmul((3, 5), (6, 7)),
        _matmul((3, 5), (5, 7), ("uint8", "int8"), (4,)),
        _conv((1, 3, 7, 5), (4, 2, 3, 3)),
        _conv((1, 3, 7, 5), (4, 3, 3, 3), (3,)),
    ):
        with pytest.raises(InvalidModelError):
            case.types()
