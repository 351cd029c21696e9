"""Windows that reach far beyond the input, which a file may ask for in a few bytes: their taps out
there cost nothing, and the numbers are those of the standard."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.ir import Array
from vkconv.ops.average_pool import LARGEST_COUNTED
from vkconv.ops.window import Axis

SHAPE = (2, 5, 9, 10)


def taps_inside(axis: Axis) -> dict[int, list[int]]:
    """The positions in the input that each window has a tap at."""
    starts = [o * axis.stride - axis.begin for o in range(axis.out)]
    found = {o: [s + k * axis.dilation for k in range(axis.kernel)] for o, s in enumerate(starts)}
    return {o: [p for p in places if 0 <= p < axis.size] for o, places in found.items()}


def test_trimmed_windows_have_the_same_taps_inside_and_few_others() -> None:
    shorter = 0
    numbers = ((1, 2, 5), (1, 2, 3), (1, 2, 9), (1, 2, 3), (1, 2, 3), (0, 1, 4, 11), (0, 3))
    for size, out, kernel, stride, dilation, begin, end in itertools.product(*numbers):
        axis = Axis(size, out, kernel, stride, dilation, begin, end)
        trimmed = axis.trimmed
        assert taps_inside(axis) == taps_inside(trimmed), axis
        assert trimmed.begin >= 0 and trimmed.kernel <= size + (out - 1) * stride + dilation + 1
        assert trimmed.padding == (trimmed.begin, trimmed.end)
        shorter += trimmed.kernel < axis.kernel
    assert shorter > 100


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("MaxPool", {}),
        ("AveragePool", {}),
        ("AveragePool", {"count_include_pad": 1}),
        ("LpPool", {"p": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("strides", [[1, 1], [3, 2]], ids=str)
def test_against_onnxruntime(op_type: str, attributes: dict[str, int], strides: list[int]) -> None:
    window = {"kernel_shape": [41, 3], "pads": [20, 1, 20, 1], "strides": strides}
    case = Case(op_type, (random(*SHAPE),), {**window, **attributes})
    check_reference(case)
    check_device(case)


def summed(x: Array, axes: tuple[Axis, ...]) -> Array:
    """The sum of each window, in float64."""
    total = np.zeros((*x.shape[:2], *(a.out for a in axes)))
    inside = [taps_inside(a) for a in axes]
    for place in np.ndindex(*(a.out for a in axes)):
        rows, columns = (found[o] for found, o in zip(inside, place, strict=True))
        total[(..., *place)] = x[:, :, rows][:, :, :, columns].sum((2, 3), dtype=np.float64)
    return total


@pytest.mark.parametrize("kernel", [(1 << 20, 3), (1 << 30, 4), ((1 << 31) - 1, (1 << 31) - 1)])
@pytest.mark.parametrize("includes", [0, 1])
def test_means_of_enormous_windows(kernel: tuple[int, int], includes: int) -> None:
    x = np.abs(random(*SHAPE))
    attributes = {
        "kernel_shape": list(kernel), "auto_pad": "SAME_LOWER", "strides": [3, 2],
        "count_include_pad": includes,
    }  # fmt: skip
    case = Case("AveragePool", (x,), attributes)
    # every window covers the whole of the input along an axis whose padding is longer than it
    small = tuple(min(k, 64 + k % 2) for k in kernel)
    _, _, height, width = case.expected()[0].shape
    window = tuple(
        Axis(size, out, k, s, 1, ((out - 1) * s + k - size + 1) // 2, 0)
        for size, out, k, s in zip(SHAPE[2:], (height, width), small, (3, 2), strict=True)
    )
    count = prod(kernel) if includes else summed(np.ones(SHAPE), window)
    np.testing.assert_allclose(case.expected()[0], summed(x, window) / count, rtol=1e-5, atol=1e-30)
    # what no kernel counts runs on the host; what is counted in the input alone on the device
    assert prod(kernel) > LARGEST_COUNTED
    check_device(case, where="host" if includes else "gpu")


@pytest.mark.parametrize("kernel", [(1 << 20, 3), (1 << 30, 4)])
@pytest.mark.parametrize(
    ("op_type", "more", "outputs"),
    [("MaxPool", {}, 1), ("MaxPool", {}, 2), ("LpPool", {"p": 3}, 1)],
)
def test_enormous_windows_are_those_that_cover_the_input(
    op_type: str, more: dict[str, int], outputs: int, kernel: tuple[int, int]
) -> None:
    x = random(*SHAPE)
    attributes = {"auto_pad": "SAME_UPPER", **more}
    case = Case(op_type, (x,), {**attributes, "kernel_shape": list(kernel)}, outputs=outputs)
    small = Case(op_type, (x,), {**attributes, "kernel_shape": [64, kernel[1]]}, outputs=outputs)
    for found, wanted in zip(case.expected(), small.expected(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    check_device(case)


@pytest.mark.parametrize(
    "kernel", [(9, 3), (3, 9), (2, 13), (4, 5), (9, 2), (65, 3), (67, 5)], ids=str
)
def test_maxima_of_few_rows_or_columns(kernel: tuple[int, int]) -> None:
    # four results side by side share no tap of these
    begin = [k // 2 for k in kernel]
    pads = [*begin, *(k - 1 - b for k, b in zip(kernel, begin, strict=True))]
    case = Case("MaxPool", (random(*SHAPE),), {"kernel_shape": list(kernel), "pads": pads})
    check_reference(case)
    check_device(case)


def test_normalisation_over_more_channels_than_there_are() -> None:
    x = random(2, 7, 3, 5)
    case = Case("LRN", (x,), {"size": (1 << 31) - 1, "alpha": 1e9, "beta": 0.5})
    total = (x.astype(np.float64) ** 2).sum(1, keepdims=True)
    wanted = x / (1 + 1e9 / ((1 << 31) - 1) * total) ** 0.5
    np.testing.assert_allclose(case.expected()[0], wanted, rtol=1e-5)
    check_device(case)
