"""Class names from text and yaml."""

from __future__ import annotations

import pytest

from vkconv.converters.checkpoints.names import read_names
from vkconv.errors import InvalidInputError, InvalidModelError


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "cat\ndog\n"),
        ("data.yaml", "train: x\nnc: 2\nnames: ['cat', 'dog']\n"),
        ("data.yml", "names:\n  0: cat\n  1: dog\n"),
    ],
)
def test_files(tmp_path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert read_names(tmp_path / file, 2) == ("cat", "dog")
    with pytest.raises(InvalidInputError, match="has 2 names, but the network tells 3"):
        read_names(tmp_path / file, 3)


@pytest.mark.parametrize(
    "text", ["[a, b]", "names: 3", "names: {0: a, 2: b}", "names: []", "names: [[a], b]", "nc: 2"]
)
def test_yaml_without_names(tmp_path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InvalidModelError, match="no yaml with a list 'names'"):
        read_names(tmp_path / "data.yaml", 2)
