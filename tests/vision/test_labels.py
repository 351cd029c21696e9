"""Class names from metadata and files, none of which can be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.vision import COCO_NAMES, default_class_names, metadata_class_names, read_labels


def test_coco_has_its_eighty_names() -> None:
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == 80
    assert COCO_NAMES[0] == "person" and COCO_NAMES[79] == "toothbrush"
    assert COCO_NAMES[10] == "fire hydrant" and COCO_NAMES[21] == "bear"
    assert all(name == name.strip() and "  " not in name for name in COCO_NAMES)
    assert default_class_names(80) is COCO_NAMES
    assert default_class_names(2) == ("class 0", "class 1")


def test_names_from_metadata() -> None:
    assert metadata_class_names({}) is None
    assert metadata_class_names({"vkconv.classes": '["a", "b"]'}) == ("a", "b")
    assert metadata_class_names({"names": "{1: 'b', 0: 'a',}"}) == ("a", "b")
    assert metadata_class_names({"names": "['a', \"b\"]"}) == ("a", "b")
    assert metadata_class_names({"names": repr({0: "it's", 1: 'say "x"', 2: "a\\b"})}) == (
        "it's",
        'say "x"',
        "a\\b",
    )
    assert metadata_class_names({"names": str(dict(enumerate(COCO_NAMES)))}) == COCO_NAMES
    both = {"names": "['n']", "vkconv.classes": '["v"]'}
    assert metadata_class_names(both) == ("v",)


def test_names_are_made_printable() -> None:
    names = ["\x1b[31mred\x1b[0m", "two\nlines", "", "x" * 500, "fußgänger", "行人"]
    cleaned = metadata_class_names({"vkconv.classes": json.dumps(names)})
    assert cleaned is not None
    assert cleaned[0] == "[31mred [0m" and cleaned[1] == "two lines" and cleaned[2] == "class 2"
    assert len(cleaned[3]) == 60 and cleaned[4:] == ("fußgänger", "行人")


@pytest.mark.parametrize(
    "metadata",
    [
        {"vkconv.classes": "a, b"},
        {"vkconv.classes": "[]"},
        {"vkconv.classes": "[1, 2]"},
        {"vkconv.classes": '{"0": "a"}'},
        {"vkconv.classes": "[" * 100_000},
        {"names": ""},
        {"names": "{}"},
        {"names": "person"},
        {"names": "{0: 'a', 2: 'c'}"},
        {"names": "{0: 'a' 1: 'b'}"},
        {"names": "{0: __import__('os').getcwd()}"},
        {"names": "(" * 100_000},
        {"names": "-" * 100_000 + "1"},
        {"names": "{0: '\\N{no such character}'}"},
        {"names": "{" + "0: 'a'," * 20_000 + "!"},
        {"names": "{0: '" + "\\" * 99_999},
    ],
)
def test_malformed_names_are_a_typed_error(metadata) -> None:
    with pytest.raises(InvalidModelError, match=next(iter(metadata))):
        metadata_class_names(metadata)


def test_labels_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\ndog \r\n\r\nbird\r\n\r\n".encode())
    assert read_labels(path) == ("cat", "dog", "class 2", "bird")


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(128, 256)))
    (tmp_path / "large.txt").write_text("x\n" * (3 << 20))
    for name, message in {
        "missing.txt": "No such file",
        "empty.txt": "is empty",
        "binary.txt": "not UTF-8",
        "large.txt": "too large",
        ".": "not a file",
    }.items():
        with pytest.raises(InvalidInputError, match=message):
            read_labels(tmp_path / name)
