"""Models on disk: one file, or two, each whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import assert_same, expected, floats, model, node
from tests.test_onnx_writer import conv_and_norm, scale_and_shift
from vkconv import InvalidInputError, InvalidModelError
from vkconv.onnx_reader import open_model
from vkconv.onnx_writer import ModelEditor, StoredModel
from vkconv.onnx_writer import storage as storage_module
from vkconv.passes import fuse_linear


def external(tmp_path: Path, name: str = "in.onnx", data: str = "weights.bin") -> Path:
    """A model that keeps its larger tensors in a file beside it, one tensor of them unknown
    here."""
    proto = model(
        [
            *conv_and_norm("a", "x"),
            node("Relu", "an", "r"),
            node("Conv", "r v", "y"),
            node("Cast", "half", "unread", to=TensorProto.FLOAT),
        ],
        {"x": [1, 32, 4, 4]},
        {"y": [1, 32, 4, 4]},
        {"w": floats(32, 32, 1, 1), "v": floats(32, 32, 1, 1, seed=1), **scale_and_shift(32)},
    )
    half = helper.make_tensor("half", TensorProto.BFLOAT16, [1024], bytes(2048), raw=True)
    proto.graph.initializer.append(half)
    path = tmp_path / name
    onnx.save(proto, path, save_as_external_data=True, location=data, size_threshold=1000)
    return path


def stored(path: Path) -> StoredModel:
    source = open_model(path)
    editor = ModelEditor(source)
    fuse_linear(editor.graph)
    return StoredModel(editor.write({}), source.folder)


def test_external_data_goes_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source, target = external(tmp_path), tmp_path / "out" / "fused.onnx"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    model_of = stored(source)
    assert not model_of.is_one_file
    assert model_of.external_files == {(tmp_path / "weights.bin").resolve()}
    with pytest.raises(InvalidModelError, match="use its path"):
        model_of.to_bytes()
    model_of.save(str(target))
    assert sorted(p.name for p in target.parent.iterdir()) == ["fused.onnx", "fused.onnx.data"]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    onnx.checker.check_model(target, full_check=True)
    made = onnx.load(target, load_external_data=False)
    places = {t.name: {e.key: e.value for e in t.external_data} for t in made.graph.initializer}
    assert {p["location"] for p in places.values() if p} == {"fused.onnx.data"}
    assert all(int(p["offset"]) % 4096 == 0 for p in places.values() if p)
    assert places["v"] and places["half"]
    whole, original = onnx.load(target), onnx.load(source)
    assert {"v", "half"} <= {t.name for t in whole.graph.initializer}
    for tensor in original.graph.initializer:
        for other in whole.graph.initializer:
            assert tensor.name != other.name or tensor.raw_data == other.raw_data
    for proto in (whole, original):  # onnxruntime has no use for the unread one
        del proto.graph.node[-1:]
        kept = [t for t in proto.graph.initializer if t.name != "half"]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
    feeds = {"x": floats(1, 32, 4, 4)}
    assert_same(expected(whole, feeds), expected(original, feeds))


def test_a_model_may_take_the_place_of_its_own_files(tmp_path: Path) -> None:
    source = external(tmp_path, data="in.onnx.data")
    original = onnx.load(source)
    stored(source).save(str(source))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "in.onnx.data"]
    made = onnx.load(source)
    assert len(made.graph.node) == len(original.graph.node) - 1
    [v] = [t for t in made.graph.initializer if t.name == "v"]
    assert np.array_equal(numpy_helper.to_array(v), floats(32, 32, 1, 1, seed=1))


def test_a_model_too_large_for_one_file_is_written_as_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of 2 GiB, lowered."""
    monkeypatch.setattr(storage_module, "LARGEST_MESSAGE", 4000)
    proto = model(
        [node("Conv", "x w", "c"), node("Add", "c k", "y")],
        {"x": [1, 32, 4, 4]},
        {"y": [1, 32, 4, 4]},
        {"w": floats(32, 32, 1, 1), "k": floats(1)},
    )
    held = StoredModel(proto, None)
    held.save(str(tmp_path / "m.onnx"))
    loaded = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert [t.data_location for t in loaded.graph.initializer] == [TensorProto.EXTERNAL, 0]
    assert proto.graph.initializer[0].raw_data and held.to_proto() == proto
    feeds = {"x": floats(1, 32, 4, 4)}
    assert_same(expected(onnx.load(tmp_path / "m.onnx"), feeds), expected(proto, feeds))


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    source = external(tmp_path)
    held = stored(source)
    with pytest.raises(InvalidInputError, match="cannot write"):
        held.save(str(tmp_path / "no folder" / "m.onnx"))
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(InvalidModelError, match=r"'weights.bin' of tensor '\w+' is cut short"):
        held.save(str(tmp_path / "m.onnx"))
    data.unlink()
    with pytest.raises(InvalidModelError, match="is missing"):
        held.save(str(tmp_path / "m.onnx"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx"]
