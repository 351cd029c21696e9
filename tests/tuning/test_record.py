"""The tuning record: what is written is read, line by line; what is damaged is a miss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.errors import InvalidInputError
from vkconv.tuning import record as records
from vkconv.tuning.record import (
    Target,
    Timing,
    check_replaceable,
    encode_record,
    read_record,
    record_path,
    save_record,
    target_of,
)

HERE = Target("card", "driver 1", "0.1.0", "uniform_texel")
THERE = Target("other card", "driver 1", "0.1.0", "")
FAST = Timing("conv2d 8x4 lanes=8", 0.5, "conv2d 16x4 lanes=8", 0.625)
SLOW = Timing("conv2d 16x4 lanes=8", 0.625, "conv2d 16x4 lanes=8", 0.625)


def test_findings_are_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    save_record(path, HERE, {"b": FAST, "a": SLOW})
    save_record(path, THERE, {"a": FAST})
    save_record(path, HERE, {"a": FAST, "c": SLOW})
    assert read_record(path) == {HERE: {"a": FAST, "b": FAST, "c": SLOW}, THERE: {"a": FAST}}
    assert [p.name for p in tmp_path.iterdir()] == ["tuning.json"]


def test_one_sorted_line_a_layer() -> None:
    names = 'b "quoted"', "a", "ü\n"
    text = encode_record({THERE: {"a": FAST}, HERE: dict.fromkeys(names, FAST)})
    assert text.count(json.dumps(FAST.choice)) == sum(FAST.choice in x for x in text.splitlines())
    assert text.index('"card"') < text.index('"a"') < text.index('"b ') < text.index("other card")
    found: Any = json.loads(text)
    assert found["format"] == records.FORMAT and found["version"] == records.VERSION
    assert found["devices"][0]["layers"]["a"] == dataclasses.asdict(FAST)
    assert set(found["devices"][0]["layers"]) == set(names)


def test_a_device_is_told_apart_by_driver_version_and_features() -> None:
    info = DeviceInfo(0, "card", "discrete", "driver 1", "1.1", 0)
    caps = DeviceCaps(subgroup_shuffle=True, subgroup_size=8)
    target = target_of(info, caps)
    assert (target.device, target.driver) == ("card", "driver 1")
    others = [
        target_of(dataclasses.replace(info, driver="driver 2"), caps),
        target_of(dataclasses.replace(info, name="other"), caps),
        target_of(info, dataclasses.replace(caps, subgroup_size=16)),
        target_of(info, dataclasses.replace(caps, uniform_texel=True)),
        target_of(info, dataclasses.replace(caps, unrolls_loops=False)),
    ]
    assert len({target, *others}) == 6
    # another slot of the machine is the same device
    assert target_of(dataclasses.replace(info, index=3), caps) == target


def row(**changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(HERE), "layers": {"a": dataclasses.asdict(FAST)}, **changes}


def of(*rows: Any, **changes: Any) -> str:
    whole = {"format": records.FORMAT, "version": records.VERSION, "devices": list(rows)}
    return json.dumps({**whole, **changes})


def layer(**changes: Any) -> dict[str, Any]:
    return {"a": dataclasses.asdict(FAST), "b": {**dataclasses.asdict(FAST), **changes}}


WHOLE = encode_record({HERE: {"a": FAST}})
NO_RECORD = ["", "x", "[]", "null", "{}", '{"format": 1}', WHOLE[:-9], "[" * 100_000, "\x00\xff"]
EMPTY = [
    of(version=records.VERSION + 1),
    of(row(), version="1"),
    of(devices={}),
    of(devices=None),
    of(None, 1, [], row(device=1), row(features=None), row(layers=[]), row(layers={"a": 1})),
]
PARTLY = [
    of(row(layers=layer(ms="fast"))),
    of(row(layers=layer(ms=None))),
    of(row(layers=layer(ms=True))),
    of(row(layers=layer(ms=-1))),
    of(row(layers=layer(ms=10**400))),
    of(row(layers=layer(untuned_ms=float("inf")))),
    of(row(layers=layer(choice=3))),
    of(row(layers=layer(untuned=None))),
    of(row(), None, "x", row(layers={})),
]


@pytest.mark.parametrize("text", NO_RECORD, ids=range(len(NO_RECORD)))
def test_what_is_no_record_is_a_miss(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    path.write_bytes(text.encode("latin-1"))
    assert read_record(path) is None
    save_record(path, HERE, {"a": FAST})
    assert read_record(path) == {HERE: {"a": FAST}}


@pytest.mark.parametrize("text", EMPTY, ids=range(len(EMPTY)))
def test_a_record_of_another_version_or_form_is_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text(text)
    assert read_record(tmp_path / "tuning.json") == {}


@pytest.mark.parametrize("text", PARTLY, ids=range(len(PARTLY)))
def test_damaged_layers_are_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text(text)
    assert read_record(tmp_path / "tuning.json") == {HERE: {"a": FAST}}


def test_no_file_a_folder_and_a_giant_are_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_record(tmp_path / "none.json") is None
    assert read_record(tmp_path) is None
    path = tmp_path / "tuning.json"
    save_record(path, HERE, {"a": FAST})
    monkeypatch.setattr(records, "MAX_BYTES", 10)
    assert read_record(path) is None


def test_files_that_are_no_records_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    check_replaceable(path)
    path.write_bytes(b"")
    check_replaceable(path)
    save_record(path, HERE, {"a": FAST})
    check_replaceable(path)
    path.write_bytes(b"weights")
    with pytest.raises(InvalidInputError, match=r"model\.onnx.*no tuning record"):
        check_replaceable(path)


def test_where_the_record_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert record_path() == tmp_path / "cache" / "tuning.json"
    monkeypatch.setenv("VKCONV_TUNING", "shared.json")
    assert record_path() == Path("shared.json")
    assert record_path("mine.json") == Path("mine.json")
    monkeypatch.setenv("VKCONV_DISABLE", "texel, tuning")
    assert record_path() is None
    assert record_path("mine.json") == Path("mine.json")
