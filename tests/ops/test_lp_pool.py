"""LpPool and GlobalLpPool against onnxruntime, the kernel against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from tests.plan.planning import planned
from vkconv.errors import InvalidModelError
from vkconv.ops.reduction_kernels import MOST_ITERATIONS


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


@pytest.mark.filterwarnings("ignore:nodes that run on the host")
def test_windows_of_many_taps() -> None:
    """llvmpipe ends an invocation's loops after 65,535 turns, without a word."""
    check_device(everywhere((1, 3, 301, 221), 1))
    check_device(everywhere((2, 1, 301, 221), 2, opset=22).but(layout="c4"))
    check_device(everywhere((1, 1, 301, 221), 3), where="host")
    check_device(pool((1, 1, 302, 220), kernel_shape=[301, 220], p=2), where="host")
    # all but one row and column, all of it by pads
    check_device(pool((1, 5, 23, 21), kernel_shape=[23, 21], pads=[1, 1, 1, 1], p=1))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_invocations_of_many_outputs_make_few_turns(p: int) -> None:
    case = pool((1, 1200, 75, 70), kernel_shape=[30, 30], p=p)
    (found,) = (d for d in planned(case.model()).dispatches if d.kernel == "lp_pool")
    lanes = dict(found.spec)["local_size_x"]
    turns = -(-46 * 41 // (found.grid[0] * lanes)) * -(-300 // found.grid[1])
    assert turns > 1 and turns * 30 * 30 <= MOST_ITERATIONS
