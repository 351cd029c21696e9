"""The fused model's files, and those of the model that is read."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.fusion.models import rep_block
from tests.small_models import assert_same, expected, floats
from tests.test_onnx_writer_files import external
from vkconv import InvalidInputError
from vkconv.fusion import fuse


def test_the_model_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    source = external(tmp_path, data="out.onnx.data")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fused = fuse(source)
    (tmp_path / "link.onnx").symlink_to(source)
    for target in (source, tmp_path / "link.onnx", tmp_path / "out.onnx"):
        with pytest.raises(InvalidInputError, match="belongs to the model that is read"):
            fused.save(target, force=True)
    (tmp_path / "link.onnx").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    fused.save(source, force=True, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "in.onnx",
        "in.onnx.data",
        "out.onnx.data",
    ]


def test_models_in_two_files_are_proven_too(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(rep_block(), path, save_as_external_data=True, location="in.data", size_threshold=100)
    fused = fuse(path)
    assert fused.is_proven
    fused.save(tmp_path / "out.onnx")
    feeds = {"images": floats(1, 4, 6, 6)}
    assert_same(expected(onnx.load(tmp_path / "out.onnx"), feeds), expected(rep_block(), feeds))
