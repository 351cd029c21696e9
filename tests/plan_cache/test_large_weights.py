"""A kept plan holds no large weights: they are packed from the model's file at every load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.plan_cache.sessions import entries, outputs, saved, settle
from tests.small_models import floats, model, node
from vkconv import InferenceSession, model_file
from vkconv.errors import InvalidModelError


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight of a kilobyte is a large one."""
    monkeypatch.setattr(model_file, "LEAST_BYTES", 1024)


def wide(seed: int = 0, bias: int = 0, height: int | str = 8) -> onnx.ModelProto:
    """A Winograd convolution, one of a 1x1, a transposed one, a matrix product; their weights are
    large, and only they depend on ``seed``."""
    constants = {
        "w3": floats(16, 16, 3, 3, seed=seed) - 0.5,
        "w1": floats(32, 16, 1, 1, seed=seed + 1) - 0.5,
        "wt": floats(32, 9, 2, 2, seed=seed + 2) - 0.5,
        "wm": floats(9, 40, seed=seed + 3) - 0.5,
        "b": floats(16, seed=bias),
    }
    nodes = [
        node("Conv", "x w3 b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "c2"),
        node("Conv", "c2 w1", "d"),
        node("Relu", "d", "d2"),
        node("ConvTranspose", "d2 wt", "t", strides=[2, 2]),
        node("Relu", "t", "t2"),
        node("ReduceMean", "t2", "m", axes=[2, 3], keepdims=0),
        node("MatMul", "m wm", "y"),
    ]
    return model(nodes, {"x": [1, 16, height, 8]}, {"y": None}, constants)


def test_an_entry_holds_no_large_weights_and_serves_whatever_they_are(
    folder: Path, read: list[str], tmp_path: Path, apart: None
) -> None:
    x = floats(1, 16, 8, 8)
    path = saved(tmp_path / "m.onnx", wide())
    first = outputs(path, x)
    (entry,) = entries(folder)
    assert b'"recipe"' in entry.read_bytes() and b'"looked_into":[]' in entry.read_bytes()
    np.testing.assert_array_equal(outputs(path, x), first)
    np.testing.assert_array_equal(outputs(path.read_bytes(), x), first)
    assert len(read) == 1
    saved(path, wide(seed=9))
    second = outputs(path, x)
    assert len(read) == len(entries(folder)) == 1 and not np.array_equal(first, second)
    np.testing.assert_allclose(second, outputs(path, x, "reference"), rtol=1e-3, atol=1e-5)
    saved(path, wide(bias=1))
    third = outputs(path, x)
    assert len(entries(folder)) == 2
    np.testing.assert_allclose(third, outputs(path, x, "reference"), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("switch", ["", "texel,subgroup", "unified"])
def test_packed_anew_the_weights_are_the_same(
    switch: str, read: list[str], tmp_path: Path, apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = floats(1, 16, 8, 8)
    path = saved(tmp_path / "m.onnx", wide())
    monkeypatch.setenv("VKCONV_DISABLE", f"plan_cache,{switch}")
    expected = outputs(path, x)
    monkeypatch.setenv("VKCONV_DISABLE", switch)
    np.testing.assert_array_equal(outputs(path, x), expected)
    count = len(read)
    np.testing.assert_array_equal(outputs(path, x), expected)
    assert len(read) == count == 2


def looked_into(seed: int = 0) -> onnx.ModelProto:
    """The plan of a Concat of two constants depends on what they hold; that of the product beside
    it does not."""
    constants = {
        "a": floats(1, 20, 20, seed=seed), "b": floats(1, 20, 20), "w": floats(20, 20, seed=7),
    }  # fmt: skip
    nodes = [
        node("Concat", "a b", "ab", axis=0),
        node("ReduceSum", "ab", "s", keepdims=0),
        node("MatMul", "x w", "p"),
        node("Add", "p s", "y"),
    ]
    return model(nodes, {"x": [20, 20]}, {"y": None}, constants)


def test_weights_that_planning_looked_into_have_to_be_the_same(
    folder: Path, read: list[str], tmp_path: Path, apart: None
) -> None:
    x = floats(20, 20)
    path = saved(tmp_path / "m.onnx", looked_into())
    first = outputs(path, x)
    outputs(path, x)
    (entry,) = entries(folder)
    assert len(read) == 1 and b'"looked_into":[[' in entry.read_bytes()
    saved(path, looked_into(seed=1))
    second = outputs(path, x)
    assert len(read) == 2 and entries(folder) == [entry], "the entry was made anew"
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(second, outputs(path, x, "reference"), rtol=1e-4, atol=1e-4)
    count = len(read)
    np.testing.assert_array_equal(outputs(path, x), second)
    assert len(read) == count


def test_open_sizes_and_a_file_that_changes_beside_the_session(
    folder: Path, tmp_path: Path, apart: None
) -> None:
    """Weights that may be packed again are read when the model is loaded."""
    path = saved(tmp_path / "m.onnx", wide(height="h"))
    expected = {h: outputs(path, floats(1, 16, h, 8), "reference") for h in (8, 9, 10)}
    for _ in range(2):
        saved(path, wide(height="h"))
        with InferenceSession(path) as session:
            path.write_bytes(b"")
            for height, wanted in expected.items():
                (y,) = session.run(None, {"x": floats(1, 16, height, 8)})
                np.testing.assert_allclose(y, wanted, rtol=1e-3, atol=1e-5)
            assert session.memory.host_weights > 0
        settle()
    assert entries(folder)


def test_a_recipe_is_for_the_model_it_was_made_for(
    folder: Path, tmp_path: Path, apart: None
) -> None:
    """As a plan file, without the model's weights, an entry is refused."""
    outputs(saved(tmp_path / "m.onnx", wide()), floats(1, 16, 8, 8))
    (entry,) = entries(folder)
    with pytest.raises(InvalidModelError, match="the model's weights"):
        InferenceSession(entry)
