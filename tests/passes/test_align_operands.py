"""Broadcasting with ``axis``, as models before opset 7 have it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.rewriting import evaluate, operators, rewritten
from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Array

CASES = [
    # shape of b, axis, the shape it is seen with
    ((4, 5), None, (4, 5)),
    ((3, 4), 1, (3, 4, 1)),
    ((3,), 1, (3, 1, 1)),
    ((2, 3), 0, (2, 3, 1, 1)),
    ((4,), -2, (4, 1)),
    ((1,), 0, (1,)),
    ((), None, ()),
]


@pytest.mark.parametrize(("shape", "axis", "seen"), CASES)
@pytest.mark.parametrize("constant", [True, False])
def test_operands_get_the_dimensions_they_lack(
    shape: tuple[int, ...], axis: int | None, seen: tuple[int, ...], constant: bool
) -> None:
    a, b = floats(2, 3, 4, 5), floats(*shape)
    given = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    made = node("Mul", "a b", "y", **given)
    inputs = {"a": [2, 3, 4, 5]} | ({} if constant else {"b": list(shape)})
    proto = model([made], inputs, {"y": None}, {"b": b} if constant else {}, opset=6)
    feeds: dict[str, Array] = {"a": a} | ({} if constant else {"b": b})
    graph = rewritten(proto)
    assert operators(graph) == ["Reshape"] * (not constant and seen != shape) + ["Mul"]
    assert np.array_equal(evaluate(graph, feeds)[0], a * b.reshape(seen))
    with InferenceSession(proto) as session:
        assert np.allclose(session.run(None, feeds)[0], a * b.reshape(seen))


def test_the_slope_of_prelu() -> None:
    x, slope = floats(2, 3, 4), np.array([0.1, 0.2, 0.3], np.float32)
    proto = model([node("PRelu", "x s", "y")], {"x": [2, 3, 4]}, {"y": None}, {"s": slope}, opset=6)
    wanted = np.where(x < 0, x * slope[:, None], x)
    assert np.allclose(evaluate(rewritten(proto), {"x": x})[0], wanted)


def test_an_axis_that_does_not_fit() -> None:
    made = node("Add", "a b", "y", broadcast=1, axis=2)
    proto = model([made], {"a": [2, 3], "b": [3]}, {"y": None}, opset=6)
    with pytest.raises(InvalidModelError, match="at axis 2"):
        InferenceSession(proto)


def test_the_attributes_mean_nothing_today() -> None:
    made = node("Add", "a b", "y", broadcast=1, axis=1)
    proto = model([made], {"a": [2, 3], "b": [2, 3]}, {"y": None}, opset=7)
    with pytest.raises(UnsupportedModelError, match=r"attribute '(axis|broadcast)'"):
        InferenceSession(proto)
