"""vkconv/ops/scatter.py, scatter_kernels.py"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random
from tests.ops.guarded import WILD, check_guarded
from vkconv.ops.scatter_kernels import Reduction, last_of

SHADER = Path(__file__).parents[2] / "shaders" / "include" / "scatter_reductions.glsl"
REDUCTIONS = ["none", "add", "mul", "max", "min"]


def _elements(
    shape: tuple[int, ...],
    updated: tuple[int, ...],
    axis: int = 0,
    reduction: str = "none",
    dtype: str = "float32",
    *,
    repeated: bool = True,
    **more: object,
) -> Case:
    size = shape[axis]
    indices = random(*updated, low=-size, high=size, dtype="int64", seed=1)
    if not repeated:
        order = np.argsort(random(*updated[:axis], size, *updated[axis + 1 :], seed=2), axis)
        indices = np.take(order, np.arange(updated[axis]), axis)
    inputs = (random(*shape, dtype=dtype), indices, random(*updated, dtype=dtype, seed=3))
    attributes = {"axis": axis} | ({} if reduction == "none" else {"reduction": reduction})
    return Case("ScatterElements", inputs, attributes, 18, **more)


def _slices(
    shape: tuple[int, ...],
    count: tuple[int, ...],
    depth: int,
    reduction: str = "none",
    dtype: str = "float32",
    **more: object,
) -> Case:
    columns = [
        random(*count, low=-s, high=s, dtype="int64", seed=d) for d, s in enumerate(shape[:depth])
    ]
    updates = random(*count, *shape[depth:], dtype=dtype, seed=3)
    inputs = (random(*shape, dtype=dtype), np.stack(columns, -1), updates)
    attributes = {} if reduction == "none" else {"reduction": reduction}
    return Case("ScatterND", inputs, attributes, 18, **more)


COMPUTED = [
    _elements((7,), (17,)),
    _elements((7, 5), (3, 5), repeated=False),
    _elements((7, 5), (7, 13), 1),
    _elements((7, 5), (4, 1), 1),
    _elements((3, 5, 7), (2, 11, 3), -2),
    _elements((2, 3, 2, 5, 2, 7), (1, 2, 1, 9, 1, 4), 3),
    _elements((7, 5), (3, 5), dtype="int64"),
    _elements((7, 5), (3, 5), dtype="bool"),
    _elements((7, 5), (3, 5), dtype="float16"),
    *(_elements((7, 5), (30, 5), reduction=r) for r in REDUCTIONS),
    *(_elements((3, 40), (3, 200), 1, r) for r in REDUCTIONS[1:]),
    *(_elements((7, 5), (30, 5), 0, r, "int32") for r in REDUCTIONS),
    _elements((7, 5), (3, 5), 0, "max", "uint8"),
    _elements((7, 5), (0, 5)),
    _elements((7, 5), (0, 5), 0, "add"),
    _slices((7,), (17,), 1),
    _slices((7, 5), (3,), 1),
    _slices((7, 5), (20,), 2),
    _slices((7, 5, 33), (4, 5), 2),
    _slices((2, 3, 2, 3, 2, 3, 2), (11,), 7),
    _slices((7, 5), (3,), 1, dtype="int64"),
    *(_slices((7, 3), (30,), 1, r) for r in REDUCTIONS),
    *(_slices((7, 3), (30,), 2, r) for r in REDUCTIONS[1:]),
    *(_slices((7, 3), (30,), 1, r, "int32") for r in REDUCTIONS[1:]),
    _slices((7, 5), (0,), 1, "add"),
]
SCATTER = _elements((7, 5), (3, 5)).but(op_type="Scatter", opset=10)
CASES = [
    *COMPUTED,
    *(case.but(constant=(1,)) for case in COMPUTED),
    SCATTER,
]


# int64's maximum and bool's sum run on the host, where ONNX Runtime has them too
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("constant", [(), (1,)])
def test_sums_are_the_same_in_every_run(constant: tuple[int, ...]) -> None:
    # large and small numbers in turn: every order of adding gives another sum
    updates = np.where(np.arange(70000) % 2, 1.0, 1e7).astype(np.float32) * random(70000)
    indices = random(70000, low=0, high=3, dtype="int64")
    inputs = (random(3), indices, updates)
    case = Case("ScatterElements", inputs, {"reduction": "add"}, 18, constant, reduction=70000)
    with vkconv.InferenceSession(case.model()) as session:
        first, second = (session.run(None, case.feeds())[0] for _ in range(2))
    assert np.array_equal(first, second)
    check_device(case)


def test_of_many_updates_the_last_stays() -> None:
    indices = random(20000, low=0, high=50, dtype="int64")
    updates = np.arange(20000, dtype=np.float32)
    check_device(Case("ScatterElements", (random(50), indices, updates), {}, 18))


@pytest.mark.parametrize("reduction", ["none", "max", "add"])
def test_computed_indices_outside_are_clamped(reduction: str) -> None:
    attributes = {"reduction": reduction}
    indices = np.resize(WILD, (10, 4))
    elements = (random(7, 5), indices, random(10, 4, seed=2))
    check_guarded(Case("ScatterElements", elements, {"axis": 0, **attributes}, 18))
    tuples = np.stack([WILD, WILD[::-1]], -1)
    check_guarded(
        Case("ScatterND", (random(7, 5, 3), tuples, random(10, 3, seed=2)), attributes, 18)
    )


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_nan_stays(reduction: str) -> None:
    updates = np.array([1, np.nan, 3, -1, np.nan, 0], np.float32)
    indices = np.array([0, 0, 0, 1, 2, 2], np.int64)
    x = np.array([0, np.nan, 5, 4], np.float32)
    case = Case("ScatterElements", (x, indices, updates), {"reduction": reduction}, 18)
    assert np.isnan(case.expected()[0]).tolist() == [True, True, True, False]
    check_device(case)


def test_no_kernel_wraps_integers_around() -> None:
    with pytest.warns(RuntimeWarning, match="combines uint8"):
        check_device(_elements((7, 5), (3, 5), 0, "add", "uint8"), where="host")


def test_last_of() -> None:
    assert last_of(np.array([2, 0, 2, 2]), 4).tolist() == [1, -1, 3, -1]


def test_errors() -> None:
    good = _elements((7, 5), (3, 5), constant=(1,))
    x, indices, updates = good.inputs
    bad = [
        (good.but(inputs=(x, indices + 7, updates)), "outside"),
        (good.but(inputs=(x, indices, updates[:2])), "do not fit"),
        (good.but(inputs=(x, indices, updates.astype(np.int32))), "do not fit"),
        (good.but(attributes={"reduction": "mean"}), "reduction 'mean'"),
        (good.but(attributes={"reduction": "max"}, opset=16), "reduction 'max'"),
        (_slices((7, 5), (3,), 1).but(inputs=(x, indices[:, :1], updates[:, :4])), "updates are"),
        (_slices((7, 5), (3,), 1).but(inputs=(x, np.array(3), updates)), "tuples"),
    ]
    for case, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            case.types()


def test_codes_are_those_of_the_shader() -> None:
    codes = dict(re.findall(r"#define REDUCE_(\w+) (\d+)", SHADER.read_text()))
    assert {name: int(code) for name, code in codes.items()} == {r.name: int(r) for r in Reduction}
