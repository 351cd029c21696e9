"""Concat: placement inside the result, aligned and unaligned copies."""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random


def _parts(*shapes: tuple[int, ...], dtype: str = "float32") -> tuple[np.ndarray, ...]:
    return tuple(random(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes))


def _channels(*channels: int, batch: int = 2) -> tuple[np.ndarray, ...]:
    return _parts(*((batch, c, 5, 7) for c in channels))


CASES = [
    Case("Concat", _parts((2, 3), (2, 5), (2, 1)), {"axis": 1}),
    Case("Concat", _parts((2, 3), (4, 3)), {"axis": -2}),
    Case("Concat", _parts((3,), (4,), (1,)), {"axis": 0}),
    Case("Concat", _parts((1, 4, 17), (1, 3, 17)), {"axis": 1}),
    Case("Concat", _parts((2, 1, 3, 4), (2, 1, 3, 8)), {"axis": 3}),
    Case("Concat", _parts((2, 3, 5), (2, 0, 5), (2, 1, 5)), {"axis": 1}),
    Case("Concat", _parts((1, 2, 3, 1, 2, 1, 2), (1, 2, 3, 2, 2, 1, 2)), {"axis": 3}),
    Case("Concat", _parts((2, 3), (2, 5), dtype="int64"), {"axis": 1}),
    Case("Concat", _parts((2, 3), (2, 5), dtype="bool"), {"axis": 1}),
    Case("Concat", _parts((2, 3, 4), (2, 5, 4), dtype="float16"), {"axis": 1}),
    Case("Concat", _parts((2, 3), (2, 5)), {"axis": 1}, constant=(1,)),
    Case("Concat", _parts((1, 3), (1, 5)), {"axis": 1}, constant=(0,)),
    *(
        Case("Concat", _channels(*channels), {"axis": 1}, layout="c4")
        for channels in [
            (4, 8),
            (4, 8, 3),
            (3, 5),
            (1, 1, 1),
            (2, 4, 4),
            (5, 3, 4, 7),
            (4, 1, 2, 1, 8),
            (7, 1),
            (1, 11, 2),
        ]
    ),
    Case("Concat", _channels(4, 8), {"axis": 1}, layout="c4", constant=(0,)),
    Case("Concat", _channels(3, 6), {"axis": 1}, layout="c4", constant=(1,)),
    Case("Concat", _parts((2, 5, 3, 4), (1, 5, 3, 4)), {"axis": 0}, layout="c4"),
    Case("Concat", _parts((2, 5, 3, 4), (2, 5, 2, 4)), {"axis": 2}, layout="c4"),
    Case("Concat", _parts((2, 5, 3, 4), (2, 5, 3, 1)), {"axis": 3}, layout="c4"),
    Case("Concat", _parts((2, 5, 9), (2, 6, 9)), {"axis": 1}, layout="c4"),
    Case("Concat", _parts((1, 5, 2, 3, 4), (1, 4, 2, 3, 4)), {"axis": 1}, layout="c4"),
    Case("Concat", _parts((1, 5, 2, 3, 4), (1, 5, 3, 3, 4)), {"axis": 2}, layout="c4"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_the_same_value_twice() -> None:
    from onnx import TensorProto, helper

    x = random(2, 4, 3, 5)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Sigmoid", ["x"], ["s"]),
                helper.make_node("Concat", ["s", "s", "x"], ["y"], axis=1),
            ],
            "twice",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 12, 3, 5))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with vkconv.InferenceSession(model) as session:
        (y,) = session.run(None, {"x": x})
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(y, np.concatenate([s, s, x], 1), rtol=1e-5)
