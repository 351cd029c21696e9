"""LpPool and GlobalLpPool against onnxruntime, the kernel against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import InvalidModelError


def pool(shape: tuple[int, ...], opset: int = 21, **attributes: Any) -> Case:
    reduction = int(np.prod(attributes["kernel_shape"]))
    return Case("LpPool", (random(*shape),), attributes, opset, reduction=reduction)


def everywhere(shape: tuple[int, ...], p: int, opset: int = 21) -> Case:
    return Case(
        "GlobalLpPool", (random(*shape),), {"p": p}, opset, reduction=int(np.prod(shape[2:]))
    )


CASES = [
    pool((2, 5, 17), kernel_shape=[4], strides=[3]),
    pool((1, 3, 9, 8), kernel_shape=[3, 2], p=1),
    pool((2, 7, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    pool((1, 4, 9, 8), kernel_shape=[2, 3], dilations=[2, 3], p=3),
    pool((1, 4, 9, 8), kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    pool((1, 4, 9, 8), kernel_shape=[4, 4], auto_pad="SAME_LOWER", strides=[3, 1], p=4),
    pool((1, 5, 4, 5, 6), kernel_shape=[2, 2, 3], strides=[1, 2, 2], p=2),
    pool((1, 5, 7, 7), kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1),
    pool((1, 6, 5, 5), kernel_shape=[2, 2], p=11),
    pool((1, 3, 1, 1), kernel_shape=[1, 1]),
    *(pool((1, 3, 6, 7), opset=opset, kernel_shape=[3, 3]) for opset in (2, 11, 18)),
    everywhere((2, 5, 7), 2),
    everywhere((1, 6, 13, 11), 3),
    everywhere((2, 3, 4, 5, 6), 1),
    everywhere((1, 3, 6, 7), 2, opset=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_newest_version_and_layout() -> None:
    check_device(CASES[2].but(opset=22, layout="c4"))
    check_device(CASES[-3].but(opset=22, layout="c4"))


def test_any_power_in_the_first_version() -> None:
    case = pool((1, 3, 6, 7), opset=1, kernel_shape=[3, 3], p=2.5)
    power = np.abs(np.float64(case.inputs[0])) ** 2.5
    windows = np.lib.stride_tricks.sliding_window_view(power, (3, 3), axis=(2, 3))
    expected = (windows.sum(axis=(4, 5)) ** 0.4).astype(np.float32)
    check_reference(case, lambda _: [expected])
    check_device(case)


def test_a_norm_of_no_power_is_refused() -> None:
    with pytest.raises(InvalidModelError, match="p is"):
        pool((1, 3, 6, 7), kernel_shape=[3, 3], p=0).types()
