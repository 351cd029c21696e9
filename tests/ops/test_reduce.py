"""vkconv/ops/reduce.py, reduction_kernels.py, softmax.py"""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.ops.reduction_kernels import Axis, Combine, Post, Pre, merge_axes

CODES = Path(__file__).parents[2] / "shaders" / "include" / "reduction_codes.glsl"
OPERATORS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]


def reduction(
    op: str, shape: tuple[int, ...], axes: list[int] | None, dtype: str = "float32", **more: object
) -> Case:
    low, high = {"LogSum": (0.1, 2), "Prod": (0.5, 1.5)}.get(op, (-4, 5))
    x = random(*shape, low=low, high=high, dtype=dtype)
    attributes = dict(more.pop("attributes", {}))
    length = int(np.prod([shape[a] for a in axes])) if axes else max(x.size, 1)
    more = {"reduction": length, **more}
    newest = int(more.get("opset", 28)) >= (13 if op == "Sum" else 18)
    if not newest:
        if axes is not None:
            attributes["axes"] = axes
        return Case(f"Reduce{op}", (x,), attributes, **more)
    name = "" if axes is None else "axes" + ",".join(map(str, axes))
    given = None if axes is None else np.array(axes, np.int64)
    inputs = (x,) if given is None else (x, given)
    return Case(f"Reduce{op}", inputs, attributes, constant=(1,), name=name, **more)


CASES = [
    reduction(op, shape, axes)
    for op in OPERATORS
    for shape, axes in [
        ((3, 5, 7), [-1]),
        ((3, 5, 7), [0]),
        ((2, 5, 7, 3), [0, 2]),
        ((4, 33), None),
    ]
]
CASES += [
    reduction("Sum", shape, axes, attributes={"keepdims": keepdims})
    for keepdims in (0, 1)
    for shape, axes in [
        ((), None),
        ((17,), [0]),
        ((2, 5, 7, 3), [2, 3]),
        ((2, 5, 7, 3), [1]),
        ((2, 5, 7, 3), [1, -1]),
        ((1, 1000), [1]),
        ((1000, 3), [0]),
        ((3, 1000), [0]),
        ((2, 3, 2, 5, 2, 7), [0, 2, 4]),
        ((2, 3, 2, 5, 2, 7), [1, 3, 5]),
        ((64, 100), [1]),
        ((70, 100), [0]),
    ]
]
CASES += [
    reduction("Sum", (3, 0, 2), [1]),
    reduction("Prod", (3, 0, 2), [1]),
    reduction("Sum", (3, 0, 2), [0]),
    reduction("Sum", (3, 5), []),
    reduction("Sum", (3, 5), [], attributes={"noop_with_empty_axes": 1}),
    reduction("Mean", (3, 5), None, attributes={"noop_with_empty_axes": 1}),
]
CASES += [
    reduction(op, (3, 5, 7), [1, 2], opset=opset) for op in OPERATORS for opset in (9, 13, 18)
]
CASES += [
    reduction(op, (3, 5, 7), [1], "int32")
    for op in ("Sum", "Max", "Min", "Prod", "L1", "SumSquare")
]
CASES += [reduction("Max", (3, 50), [1], dtype) for dtype in ("int64", "int8", "uint8", "bool")]
CASES += [reduction(op, (3, 50), [1], "float16") for op in ("Sum", "Mean", "Max", "LogSumExp")]
C4_CASES = [
    reduction(op, (2, 5, 7, 3), axes, layout="c4")
    for op in ("Mean", "Max", "Sum", "LogSumExp")
    for axes in ([2, 3], [1], [-1])
]
C4_CASES += [
    reduction(op, shape, axes, layout="c4", attributes={"keepdims": keepdims})
    for op in OPERATORS
    for keepdims in (0, 1)
    for shape, axes in [((2, 5, 7, 3), [2, 3]), ((1, 8, 9), [2]), ((2, 6, 3, 2, 5), [-1, 2, 3])]
]
#: onnxruntime's result for an empty mean or maximum is an error
EMPTY = [reduction("Max", (3, 0), [1]), reduction("Min", (3, 0), [1])]
HOST = [
    reduction("Mean", (3, 5), [1], "int32"),
    reduction("Sum", (3, 5), [1], "int64"),
    reduction("Sum", (2, 3, 2, 3, 2, 3, 2), [0, 2, 4, 6]),
]

SOFTMAX = [
    Case(op, (random(*shape, low=-9, high=9),), {} if axis is None else {"axis": axis}, opset=opset)
    for op in ("Softmax", "LogSoftmax")
    for opset in (9, 11, 13)
    for shape, axis in [
        ((3, 5, 7), None),
        ((3, 5, 7), 0),
        ((3, 5, 7), -1 if opset > 9 else 2),
        ((2, 33), 1),
        ((3, 101), 1),
        ((1, 1000), 1),
        ((2, 16, 5, 3), 1),
        ((17,), 0),
        ((100, 3), 1),
        ((2, 3, 0), 1),
    ]
]
SOFTMAX += [Case("Softmax", (random(2, 5, 3, 3),), {"axis": 1}, layout="c4")]


@pytest.mark.parametrize("case", CASES + HOST, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", SOFTMAX, ids=str)
def test_softmax_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + C4_CASES + EMPTY + SOFTMAX, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", HOST, ids=str)
def test_host(case: Case) -> None:
    check_device(case, where="host")


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "L2", "LogSumExp"])
def test_a_million_elements(op: str) -> None:
    """Positive terms, whose rounding errors add up in a plain loop."""
    x = random(2, 500_003, low=0, high=1)
    for axes in ([1], [0, 1]):
        check_device(Case(f"Reduce{op}", (x, np.array(axes)), constant=(1,)))
    check_device(Case(f"Reduce{op}", (x.T.copy(), np.array([0])), constant=(1,)))


def test_long_softmax() -> None:
    check_device(Case("Softmax", (random(1, 300_007),), {"axis": 1}))
    check_device(Case("Softmax", (random(2, 70_001, 3),), {"axis": 1}))


def test_long_columns() -> None:
    """Loops beyond the 65535 iterations after which llvmpipe ends them."""
    for op in ("Sum", "LogSumExp"):
        check_device(Case(f"Reduce{op}", (random(70_001, 65, low=0), np.array([0])), constant=(1,)))


def test_too_long_for_one_loop() -> None:
    x = random(60_000, 2, 3)
    check_device(Case("ReduceSum", (x, np.array([0, 2])), constant=(1,)), where="host")


def test_special_values() -> None:
    infinity = np.float32(np.inf)
    x = np.array(
        [[1, np.nan, 2], [1, infinity, 2], [-infinity, -infinity, 5], [3e38, 3e38, 1]], np.float32
    )
    for op in ("Sum", "Max", "Min", "LogSumExp"):
        check_device(Case(f"Reduce{op}", (x, np.array([1])), constant=(1,)))
    large = np.array([[1000, 1001, 900], [-1000, -1001, -1e30], [88, -88, 0]], np.float32)
    check_device(Case("Softmax", (large,)))
    check_device(Case("LogSoftmax", (large,)))


def test_special_values_of_whole_maps() -> None:
    infinity = np.float32(np.inf)
    x = random(1, 6, 5, 7)
    x[0, 0, 2, 3], x[0, 1, 4, 6], x[0, 2], x[0, 3, 0, 0] = np.nan, infinity, -infinity, -infinity
    x[0, 4, 1, 1], x[0, 4, 3, 3] = infinity, -infinity
    for op in ("Sum", "Mean", "Max", "Min", "L2"):
        given = (x, np.array([2, 3]))
        check_device(Case(f"Reduce{op}", given, constant=(1,), layout="c4", reduction=35))


@pytest.mark.parametrize("channels", [8, 6])
def test_mean_of_maps_before_a_layer(channels: int) -> None:
    """The end of many classifiers: no conversion of the whole map; of the means none where whole
    blocks are the same in both layouts."""
    nodes = [
        node("Conv", "x k", "c"),
        node("ReduceMean", "c", "m", axes=[2, 3], keepdims=0),
        node("Gemm", "m w", "y"),
    ]
    constants = {"k": floats(channels, 3, 1, 1), "w": floats(channels, 5)}
    proto = model(nodes, {"x": [2, 3, 6, 5]}, {"y": None}, constants, opset=13)
    x = random(2, 3, 6, 5)
    with InferenceSession(proto) as session:
        assert_same(session.run(None, {"x": x}), expected(proto, {"x": x}))
        kernels = [line.split()[1] for line in session.describe_plan().splitlines()[1:]]
    assert "reduce" not in kernels and kernels.count("global_pool2d") == 1
    assert kernels.count("to_linear") == int(channels % 4 != 0)


def test_axes_merge() -> None:
    axes = merge_axes((2, 5, 7, 3), (2, 3))
    assert axes.kept == (Axis(10, 21, 1),)
    assert axes.reduced == (Axis(21, 1, 0),)
    axes = merge_axes((2, 5, 7, 3), (0, 2))
    assert axes.kept == (Axis(5, 21, 3), Axis(3, 1, 1))
    assert axes.reduced == (Axis(2, 105, 0), Axis(7, 3, 0))


@pytest.mark.parametrize("codes", [Combine, Pre, Post])
def test_codes_agree_with_the_shader(codes: type[IntEnum]) -> None:
    found = re.findall(
        rf"^#define {codes.__name__.upper()}_(\w+) (\d+)", CODES.read_text(), re.MULTILINE
    )
    assert {n: int(c) for n, c in found} == {c.name: c.value for c in codes}
