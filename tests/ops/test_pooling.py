"""MaxPool, AveragePool and the global pools against onnxruntime, and the kernels against them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv.capabilities import DeviceCaps
from vkconv.ops.pool_kernels import select_sliding
from vkconv.ops.window import Axis


def _pool(op_type: str, shape: tuple[int, ...], opset: int = 22, **attributes: Any) -> Case:
    return Case(op_type, (random(*shape),), attributes, opset)


# (shape, attributes) that both poolings take
WINDOWS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 7), dict(kernel_shape=[3])),
    ((2, 5, 17), dict(kernel_shape=[4], strides=[3], pads=[1, 2], ceil_mode=1)),
    ((1, 4, 6, 6), dict(kernel_shape=[2, 2], strides=[2, 2])),
    ((2, 5, 7, 5), dict(kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])),
    ((1, 3, 15, 17), dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    ((1, 7, 13, 11), dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    ((1, 1, 5, 5), dict(kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1)),
    ((1, 2, 2, 2), dict(kernel_shape=[1, 1], strides=[3, 3], ceil_mode=1)),
    ((2, 3, 15, 15), dict(kernel_shape=[3, 3], dilations=[2, 3])),
    ((1, 3, 9, 9), dict(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")),
    ((1, 3, 9, 10), dict(kernel_shape=[4, 3], strides=[3, 2], auto_pad="SAME_LOWER")),
    ((1, 3, 9, 10), dict(kernel_shape=[4, 3], strides=[3, 2], auto_pad="VALID")),
    ((1, 5, 13, 7), dict(kernel_shape=[5, 5], pads=[2, 2, 2, 2])),
    ((2, 6, 20, 20), dict(kernel_shape=[9, 9], pads=[4, 4, 4, 4])),
    ((1, 4, 10, 11), dict(kernel_shape=[13, 13], pads=[6, 6, 6, 6])),
    ((1, 5, 6, 7), dict(kernel_shape=[6, 4], auto_pad="SAME_UPPER")),
    ((1, 5, 9, 10), dict(kernel_shape=[6, 3], auto_pad="SAME_LOWER")),
    ((2, 5, 9, 10), dict(kernel_shape=[2, 9], auto_pad="SAME_UPPER")),
    ((2, 6, 14, 13), dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
    ((1, 4, 1, 1), dict(kernel_shape=[3, 5], pads=[1, 2, 1, 2])),
    ((1, 2, 3, 3), dict(kernel_shape=[5, 7], pads=[2, 3, 2, 3])),
    ((2, 9, 7, 7), dict(kernel_shape=[7, 7])),
    ((2, 3, 5, 6, 7), dict(kernel_shape=[2, 3, 2], strides=[1, 2, 2], pads=[0, 1, 1, 1, 1, 0])),
    ((1, 5, 4, 7, 5), dict(kernel_shape=[3, 3, 3], strides=[2, 2, 2], ceil_mode=1)),
    # one window that is larger than the input: what transformers' EfficientNet ends with
    ((1, 5, 3, 4), dict(kernel_shape=[640, 640], strides=[640, 640], ceil_mode=1)),
    ((1, 5, 6, 3), dict(kernel_shape=[5, 5], strides=[3, 3], ceil_mode=1)),
    ((1, 3, 4), dict(kernel_shape=[6], strides=[3], ceil_mode=1)),
]

CASES = [
    *(_pool("MaxPool", shape, **attributes) for shape, attributes in WINDOWS),
    *(
        _pool("AveragePool", shape, **attributes, count_include_pad=include)
        for shape, attributes in WINDOWS
        for include in (0, 1)
        if not (include and "ceil_mode" in attributes)
    ),
    _pool("MaxPool", (1, 3, 9, 9), 8, kernel_shape=[2, 2]),
    _pool("AveragePool", (1, 3, 9, 9), 7, kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    Case("MaxPool", (random(1, 3, 7, 7, dtype="float16"),), dict(kernel_shape=[3, 3])),
    *(
        Case(op_type, (random(*shape),))
        for op_type in ("GlobalAveragePool", "GlobalMaxPool")
        for shape in ((1, 3, 7), (2, 5, 1, 1), (2, 17, 13, 11), (1, 4, 3, 5, 7), (3, 8, 64, 64))
    ),
]
#: where the results are compared with torch: onnxruntime divides by the whole window here
OVERHANGING = [
    _pool("AveragePool", (2, 5, 17), kernel_shape=[4], strides=[3], pads=[1, 1], ceil_mode=1),
    _pool("AveragePool", (1, 7, 14, 11), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    _pool(
        "AveragePool",
        (1, 6, 9, 8),
        kernel_shape=[4, 4],
        strides=[3, 3],
        pads=[2, 2, 2, 2],
        ceil_mode=1,
    ),
]
OVERHANGING += [
    _pool("AveragePool", shape, **attributes)
    for shape, attributes in WINDOWS
    if attributes["kernel_shape"][0] > shape[2] and "ceil_mode" in attributes
]
OVERHANGING += [
    case.but(attributes={**case.attributes, "count_include_pad": 1}) for case in OVERHANGING
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", OVERHANGING, ids=str)
def test_mean_counts_no_tap_beyond_the_padding(case: Case) -> None:
    x, a = case.inputs[0], case.attributes
    rank = len(a["kernel_shape"])
    average = getattr(torch.nn.functional, f"avg_pool{rank}d")
    expected = average(
        torch.from_numpy(x),
        a["kernel_shape"],
        a["strides"],
        a.get("pads", [0] * rank)[:rank],
        ceil_mode=True,
        count_include_pad=bool(a.get("count_include_pad", 0)),
    )
    assert_close(case.expected()[0], expected.numpy())


@pytest.mark.parametrize("case", [*CASES, *OVERHANGING], ids=str)
def test_device(case: Case) -> None:
    check_device(case)


WITH_INDICES = [
    Case("MaxPool", (x,), dict(attributes, storage_order=order), 22, outputs=2, layout=layout)
    for x, attributes, layout in [
        (random(2, 3, 7, 9), dict(kernel_shape=[3, 3], strides=[2, 2]), "linear"),
        (random(2, 3, 7, 9), dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), "c4"),
        (
            random(1, 3, 4, 7, 5),
            dict(kernel_shape=[2, 3, 2], strides=[1, 2, 2], pads=[1, 0, 0, 0, 1, 1]),
            "linear",
        ),
        (random(2, 3, 9), dict(kernel_shape=[3], dilations=[2]), "linear"),
    ]
    for order in (0, 1)
]
INTEGERS = [
    Case(
        "MaxPool",
        (random(1, 3, 7, 7, low=low, high=100, dtype=dtype),),
        dict(kernel_shape=[3, 3]),
    )
    for dtype, low in [("uint8", 0), ("int8", -100)]
]


@pytest.mark.parametrize("case", WITH_INDICES + INTEGERS, ids=str)
def test_indices_and_integers(case: Case) -> None:
    check_reference(case)
    check_device(case)


@pytest.mark.parametrize(
    "case",
    [
        Case("LpPool", (random(2, 3, 9, 7),), {**attributes, "p": p}, opset)
        for opset, p, attributes in [
            (18, 2, dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
            (18, 3, dict(kernel_shape=[3, 2], dilations=[2, 1])),
            (11, 1, dict(kernel_shape=[2, 2], auto_pad="SAME_UPPER")),
        ]
    ]
    + [Case("GlobalLpPool", (random(2, 3, 9, 7),), {"p": 3}, 2)],
    ids=str,
)
def test_norms(case: Case) -> None:
    check_reference(case)
    check_device(case)


def test_infinities_are_values() -> None:
    x = np.full((1, 3, 6, 6), -np.inf, np.float32)
    x[0, 0, 2, 2] = np.inf
    check_device(Case("MaxPool", (x,), dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])))
    check_device(Case("MaxPool", (x,), dict(kernel_shape=[5, 5], pads=[2, 2, 2, 2])))


def test_global_mean_of_a_large_map_is_accurate() -> None:
    x = (random(1, 5, 640, 640, low=0, high=1) + 1000).astype(np.float32)
    check_device(Case("GlobalAveragePool", (x,)))


def test_empty_batch() -> None:
    check_device(Case("MaxPool", (random(0, 3, 7, 7),), dict(kernel_shape=[3, 3])))
    check_device(Case("GlobalAveragePool", (random(0, 3, 7, 7),)))


@pytest.mark.parametrize(
    ("kernel", "cpu", "gpu"),
    [
        ((3, 3), 4, 1),
        ((4, 3), 4, 1),
        ((5, 5), 2, 0),
        ((7, 7), 0, 0),
        ((13, 13), 0, 0),
        ((6, 3), 2, None),
        ((9, 3), None, None),
    ],
)
def test_how_a_sliding_maximum_is_taken(
    kernel: tuple[int, int], cpu: int | None, gpu: int | None
) -> None:
    """Rows an invocation; 0 is two passes, which windows below 4 can't take."""
    axes = tuple(Axis(10, 10, k, 1, 1, k // 2, k - 1 - k // 2) for k in kernel)
    assert select_sliding(DeviceCaps(kind="cpu"), (1, 8, 10, 10), axes) == cpu
    assert select_sliding(DeviceCaps(kind="discrete"), (1, 8, 10, 10), axes) == gpu
    plain = DeviceCaps(kind="cpu", unrolls_loops=False)
    assert select_sliding(plain, (1, 8, 10, 10), axes) == (0 if min(kernel) >= 4 else None)


def test_other_maxima_do_not_slide() -> None:
    same = Axis(10, 10, 5, 1, 1, 2, 2)
    for other in (
        Axis(10, 5, 5, 2, 1, 2, 2),
        Axis(10, 6, 5, 1, 1, 0, 0),
        Axis(10, 10, 3, 1, 2, 2, 2),
        Axis(10, 10, 1, 1, 1, 0, 0),
    ):
        assert select_sliding(DeviceCaps(kind="cpu"), (1, 8, 10, 10), (same, other)) is None
    assert select_sliding(DeviceCaps(kind="cpu"), (1, 8, 10), (same,)) is None


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
def test_maps_of_a_million_pixels(op_type: str) -> None:
    """More turns of a loop, by eight lanes, than llvmpipe makes."""
    check_device(_pool(op_type, (1, 2, 1030, 1025)).but(reduction=1000))


@pytest.mark.parametrize("op_type", ["AveragePool", "MaxPool"])
def test_windows_of_many_taps(op_type: str) -> None:
    """More turns than llvmpipe makes: in all of an invocation's results, then in one of them."""
    case = _pool(op_type, (1, 2, 250, 260), kernel_shape=[190, 200], strides=[11, 9])
    check_device(case.but(reduction=1000))
    check_device(_pool(op_type, (1, 2, 150, 700), kernel_shape=[90, 80], strides=[1, 9]))
    wide = _pool(op_type, (1, 2, 250, 260), kernel_shape=[240, 250], strides=[11, 9])
    check_device(wide, where="host")


def test_maximum_with_indices_of_many_taps() -> None:
    x = random(1, 2, 120, 130)
    check_device(Case("MaxPool", (x,), {"kernel_shape": [110, 100]}, outputs=2))
    whole = Case("MaxPool", (random(1, 1, 250, 260),), {"kernel_shape": [250, 260]}, outputs=2)
    check_device(whole, where="host")
    check_device(whole.but(outputs=1))
