"""The safetensors format, written by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from vkconv.converters.checkpoints.safetensors import read_safetensors
from vkconv.converters.checkpoints.state_dicts import read_state_dict
from vkconv.errors import InvalidModelError


def write(path: Path, header: object, numbers: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return path


def entry(kind: str, shape: list, begin: int, end: int) -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def test_every_type(tmp_path) -> None:
    expected = {
        "F32": torch.randn(2, 3),
        "F16": torch.randn(3).half(),
        "BF16": torch.randn(5, 1).bfloat16(),
        "F64": torch.randn(2).double(),
        "I64": torch.tensor(7),
        "U8": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "BOOL": torch.tensor([True, False]),
    }
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    numbers = b""
    for kind, tensor in expected.items():
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        # one after the other: an odd number of bytes leaves what follows unaligned
        header[kind] = entry(kind, list(tensor.shape), len(numbers), len(numbers) + len(raw))
        numbers += raw
    path = write(tmp_path / "x.safetensors", header, numbers)
    found = read_safetensors(str(path))
    assert list(found) == list(expected)
    for kind, tensor in expected.items():
        assert found[kind].dtype == tensor.dtype and torch.equal(found[kind], tensor)
    assert list(read_state_dict(path)) == list(expected)


def test_it_is_known_by_its_name(tmp_path) -> None:
    header = {"module.a": entry("F32", [2], 0, 8)}
    numbers = np.array([1, 2], np.float32).tobytes()
    path = write(tmp_path / "W.SafeTensors", header, numbers)
    assert read_state_dict(path)["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"not json", "no JSON header"),
        (b"[1]", "no JSON header"),
        (b"[" * 100_000, "no JSON header"),
        ({"a": 1}, "no dtype, shape"),
        ({"a": entry("F8", [1], 0, 1)}, "the type 'F8'"),
        ({"a": entry(["F32"], [1], 0, 4)}, "the type"),
        ({"a": entry("F32", [-1], 0, 4)}, "lists of counts"),
        ({"a": entry("F32", ["1"], 0, 4)}, "lists of counts"),
        ({"a": entry("F32", [1], 0, "4")}, "lists of counts"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, "lists of counts"),
        ({"a": entry("F32", [2], 0, 4)}, "does not lie in the file"),
        ({"a": entry("F32", [4], 0, 16)}, "does not lie in the file"),
        ({"a": entry("F32", [1], 8, 4)}, "does not lie in the file"),
        ({"a": entry("F32", [1 << 39, 1 << 39], 0, 4)}, "does not lie in the file"),
    ],
)
def test_headers_that_lie(tmp_path, header: object, message: str) -> None:
    path = write(tmp_path / "x.safetensors", header, b"\0" * 8)
    with pytest.raises(InvalidModelError, match=message):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 1 << 60) + b"{}"])
def test_files_that_are_none(tmp_path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match="no safetensors file"):
        read_state_dict(path)


def test_numbers_belong_to_one_tensor(tmp_path) -> None:
    """A few bytes under many names would be as many copies."""
    header = {f"a{i}": entry("F32", [64], 1, 257) for i in range(1000)}
    path = write(tmp_path / "x.safetensors", header, b"\0" * 400)
    with pytest.raises(InvalidModelError, match="'a1' shares its place"):
        read_state_dict(path)


def test_nothing_at_all(tmp_path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry("F32", [0, 3], 0, 0)}, b"")
    assert read_state_dict(path)["a"].shape == (0, 3)
