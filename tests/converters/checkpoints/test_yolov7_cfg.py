"""Reading the yaml of a YOLOv7."""

from __future__ import annotations

import pytest

from tests.models.yolov7 import NETS, cfg_of, yaml_of
from vkconv.converters.checkpoints.yolov7_cfg import parse_cfg, read_cfg
from vkconv.errors import InvalidInputError, InvalidModelError

SMALL = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2, "None", 1, "nn.ReLU()"]], [-1, 9, "Conv", [8]]],
    "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
}


def test_rows_are_resolved() -> None:
    cfg = parse_cfg(SMALL, "small")
    assert cfg.anchors == (((10.0, 13.0), (16.0, 30.0)),)
    first, second, last = cfg.rows
    assert first.sources == (-1,) and first.arguments == (8, 3, 2, None, 1, "nn.ReLU()")
    assert (second.sources, second.repeats) == ((0,), 3)
    assert (last.sources, last.index, str(last)) == ((1,), 2, "layer 2 (Detect)")


@pytest.mark.parametrize("name", NETS)
def test_a_file_says_what_its_text_says(name: str, tmp_path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(yaml_of(name))
    assert read_cfg(path).rows == parse_cfg(cfg_of(name), str(path)).rows
    assert len(read_cfg(path).rows) == {"yolov7": 106, "yolov7-tiny": 78}[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nc": 0}, "nc has to be"),
        ({"nc": True}, "nc has to be"),
        ({"nc": "80"}, "nc has to be"),
        ({"nc": 10**9}, "nc has to be"),
        ({"width_multiple": -1}, "width_multiple"),
        ({"depth_multiple": 1e9}, "depth_multiple"),
        ({"anchors": 3}, "anchors has to be"),
        ({"anchors": [[1, 2, 3]]}, "anchors has to be"),
        ({"anchors": [[1, -2]]}, "anchors has to be"),
        ({"anchors": [[1, float("nan")]]}, "anchors has to be"),
        ({"anchors": [[1, 2], [1, 2, 3, 4]]}, "as many anchors"),
        ({"backbone": None}, "have to be lists"),
        ({"backbone": [], "head": []}, "has 0 layers"),
        ({"backbone": [[-1, 1, "Conv", [8]]] * 3000}, "has 3001 layers"),
        ({"backbone": [[-1, 1, "Conv"]]}, "layer 0 .* not of the form"),
        ({"backbone": [[-1, 1, 5, []]]}, "layer 0 .* not of the form"),
        ({"backbone": [[-1, 1, "Conv", 8]]}, "layer 0 .* not of the form"),
        ({"backbone": [[-1, 0, "Conv", [8]]]}, "number of repeats"),
        ({"backbone": [["a", 1, "Conv", [8]]]}, "'from' has to be"),
        ({"backbone": [[[], 1, "Conv", [8]]]}, "'from' has to be"),
        ({"backbone": [[0, 1, "Conv", [8]]]}, "from 0, but only the picture"),
    ],
)
def test_what_is_malformed(changes: dict, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        parse_cfg({**SMALL, **changes}, "small")


@pytest.mark.parametrize("key", ["nc", "anchors", "backbone", "head"])
def test_what_is_missing(key: str) -> None:
    with pytest.raises(InvalidModelError, match=f"has no '{key}'"):
        parse_cfg({k: v for k, v in SMALL.items() if k != key}, "small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "no yaml mapping"),
        ("", "no yaml mapping"),
        ("nc: [", "not valid yaml"),
        ("nc: !!python/object/apply:os.system ['true']", "not valid yaml"),
        ("a: &a [1]\nb: *a", "uses yaml aliases"),
        ("[" * 200_000, "nested more than"),
        ("- " * 100_000, "nested more than"),
        ("{a: " * 50_000, "nested more than"),
        ("? " * 100_000, "nested more than"),
        ("nc: " + "9" * 10_000, "not valid yaml"),
        ("a: b\n" * 60_000, "too large"),
    ],
)
def test_files_that_are_no_cfg(text: str, message: str, tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InvalidModelError, match=message) as caught:
        read_cfg(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        read_cfg(tmp_path / "none.yaml")
    with pytest.raises(InvalidInputError, match="directory"):
        read_cfg(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidModelError, match="not UTF-8"):
        read_cfg(tmp_path / "x.yaml")
