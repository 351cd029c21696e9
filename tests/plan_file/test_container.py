"""The bytes of a plan file: arrays come back as they were; the file is whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.ir import Array
from vkconv.plan_file.container import DTYPES, Reader, Writer, is_plan

ARRAYS = [
    *(np.arange(-3, 9).astype(dtype).reshape(3, 4) for dtype in DTYPES),
    np.float32(1.5).reshape(()), np.array(True), np.array(False), np.zeros((0, 3), np.int64),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(6, dtype=">f4"), np.array([np.nan, np.inf, -0.0]),
]  # fmt: skip


def written(path: Path, arrays: list[Array], **body: object) -> Path:
    writer = Writer()
    numbers = [writer.add(a) for a in arrays]
    writer.write(str(path), {"numbers": numbers, **body}, "a test")
    return path


def test_arrays_come_back(tmp_path: Path) -> None:
    path = written(tmp_path / "a", ARRAYS, text="naïve ключ", number=2**60, nothing=None)
    for source in (path, str(path), path.read_bytes()):
        reader = Reader(source)
        assert reader.body["text"] == "naïve ключ" and reader.body["number"] == 2**60
        for array, number in zip(ARRAYS, reader.body["numbers"], strict=True):
            found = reader.array(number)
            assert isinstance(found, np.ndarray) and not found.flags.writeable
            assert found.shape == array.shape
            assert found.dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found, array)


def test_an_array_is_kept_once(tmp_path: Path) -> None:
    array = np.zeros(1 << 16, np.float32)
    path = written(tmp_path / "a", [array, array, array[:10]])
    assert Reader(path).body["numbers"] == [0, 0, 1]
    assert path.stat().st_size < array.nbytes + 4096


def test_arrays_begin_at_multiples_of_64(tmp_path: Path) -> None:
    reader = Reader(written(tmp_path / "a", ARRAYS))
    assert all(row[2] % 64 == 0 for row in reader._rows)


def test_a_number_that_is_no_array(tmp_path: Path) -> None:
    reader = Reader(written(tmp_path / "a", ARRAYS))
    for number in (-1, len(ARRAYS), "0", None, 1.0, True, [0]):
        with pytest.raises(InvalidModelError, match="no array"):
            reader.array(number)


def test_an_array_without_a_form(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no form"):
        written(tmp_path / "a", [np.array([None])])
    assert not (tmp_path / "a").exists()


def test_a_failing_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a", ARRAYS[:2])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        written(path, ARRAYS, wrong=object())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidInputError, match="cannot write a test"):
        written(tmp_path / "none" / "a", ARRAYS)


def test_what_is_a_plan(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", ARRAYS)
    assert is_plan(path) and is_plan(str(path)) and is_plan(path.read_bytes())
    assert is_plan(memoryview(path.read_bytes())) and is_plan("none.vkplan")
    (tmp_path / "b.vkplan").write_bytes(b"\x08\x0aonnx")
    assert not is_plan(str(tmp_path / "b.vkplan")) and not is_plan(b"") and not is_plan(None)
    assert not is_plan("none.onnx") and not is_plan("\0")
