"""Plans kept on disk: found by whoever loads the same model again, and never the cause of an
error."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.plan_cache.sessions import entries, outputs, saved, settle
from tests.small_models import floats, model, node
from vkconv import InferenceSession, compile_model, loading, plan_cache
from vkconv.errors import InvalidModelError
from vkconv.plan_file import Encoded


def network(seed: int = 0, height: int | str = 8) -> onnx.ModelProto:
    constants = {"w": floats(4, 3, 3, 3, seed=seed)}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    return model(nodes, {"x": [1, 3, height, 8]}, {"y": None}, constants)


def test_a_model_loaded_again_is_not_read(folder: Path, read: list[str], tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", network())
    x = floats(1, 3, 8, 8)
    first = outputs(path, x)
    assert len(read) == len(entries(folder)) == 1
    np.testing.assert_array_equal(outputs(path, x), first)
    np.testing.assert_array_equal(outputs(path.read_bytes(), x), first)
    assert len(read) == len(entries(folder)) == 1


def test_sessions_of_both_kinds_say_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", network())
    told = []
    for _ in range(2):
        with InferenceSession(path) as session:
            told.append((
                session.get_inputs(), session.get_outputs(), session.get_modelmeta(),
                session.placement, session.describe_plan(),
            ))  # fmt: skip
        settle()
    assert told[0] == told[1]


@pytest.mark.parametrize("change", ["weights", "sizes", "features", "code"])
def test_what_decides_a_plan_makes_another_entry(
    change: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.onnx", network())
    x = floats(1, 3, 8, 8)
    first = outputs(path, x)
    if change == "weights":
        saved(path, network(seed=1))
    elif change == "sizes":
        saved(path, network(height=6))
        x = x[:, :, :6]
    elif change == "features":
        monkeypatch.setenv("VKCONV_DISABLE", "texel")
    else:
        monkeypatch.setattr(plan_cache, "_code", lambda: "edited")
    second = outputs(path, x)
    assert len(entries(folder)) == 2
    expected = outputs(path, x, "reference")
    np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-5)
    assert change in ("features", "code") or not np.array_equal(first, second)


def test_open_sizes_have_an_entry_for_the_first_that_is_met(
    folder: Path, read: list[str], tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.onnx", network(height="h"))
    first = outputs(path, floats(1, 3, 8, 8))
    assert len(entries(folder)) == 1
    with InferenceSession(path) as session:
        for height in (8, 9, 8):
            x = floats(1, 3, height, 8)
            (y,) = session.run(None, {"x": x})
            np.testing.assert_allclose(y, outputs(path, x, "reference"), rtol=1e-4, atol=1e-5)
            if height == 8:
                np.testing.assert_array_equal(y, first)
    settle()
    assert read


def test_external_data_belongs_to_the_model(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"

    def save(seed: int) -> None:
        (tmp_path / "w.bin").unlink(missing_ok=True)
        onnx.save(
            network(seed), path, save_as_external_data=True, location="w.bin", size_threshold=0
        )

    save(0)
    x = floats(1, 3, 8, 8)
    first = outputs(path, x)
    text = path.read_bytes()
    save(1)
    assert path.read_bytes() == text, "only the external file has changed"
    second = outputs(path, x)
    assert len(entries(folder)) == 2 and not np.array_equal(first, second)
    np.testing.assert_allclose(second, outputs(path, x, "reference"), rtol=1e-4, atol=1e-5)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InvalidModelError):
        InferenceSession(path)


def location(name: bytes) -> bytes:
    return b"\x0a\x08location\x12" + bytes([len(name)]) + name


def test_files_that_a_model_names_belong_to_it(tmp_path: Path) -> None:
    for name in (b"w", b"n" * 127):
        (tmp_path / name.decode()).write_bytes(b"weights")
    filler = bytes(range(97)) * 4
    whole = filler + location(b"w") + filler + location(b"n" * 127) + filler + location(b"w")
    files = {
        "whole": whole,
        "none": filler,
        "unknown": whole[:-1] + b"u",
        "word": whole + filler + b"location",
        "first": b"location" + whole,
        "second": b"\x08location" + whole,
    }
    for name, data in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(data)
    found = {name: plan_cache.name_model(tmp_path / f"{name}.onnx") for name in files}
    assert [name for name, named in found.items() if named is None] == list(files)[2:]
    assert found["whole"] != found["none"]
    (tmp_path / ("n" * 127)).write_bytes(b"others")
    assert plan_cache.name_model(tmp_path / "whole.onnx") not in (None, found["whole"])
    (tmp_path / "w").unlink()
    assert plan_cache.name_model(tmp_path / "whole.onnx") is None
    assert plan_cache.name_model(whole) is None and plan_cache.name_model(filler) is not None


@pytest.mark.parametrize("disabled", ["", "unified"])
def test_closing_waits_for_the_weights_to_be_written(
    disabled: str, folder: Path, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read from the device's memory, or packed anew where the host does not reach it."""
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    path = saved(tmp_path / "m.onnx", network())
    go_on = threading.Event()
    write = Encoded.write

    def later(self: Encoded, *arguments: str) -> None:
        assert go_on.wait(20)
        write(self, *arguments)

    monkeypatch.setattr(Encoded, "write", later)
    session = InferenceSession(path)
    (first,) = session.run(None, {"x": floats(1, 3, 8, 8)})
    closing = threading.Thread(target=session.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive() and not entries(folder)
    go_on.set()
    closing.join(20)
    assert not closing.is_alive() and len(entries(folder)) == 1
    np.testing.assert_array_equal(outputs(path, floats(1, 3, 8, 8)), first)
    assert len(read) == 1


def test_an_entry_is_the_plan_file_that_compile_writes(folder: Path, tmp_path: Path) -> None:
    """The weights in it are those that were packed, wherever they were read from."""
    path = saved(tmp_path / "m.onnx", network())
    outputs(path, floats(1, 3, 8, 8))
    compile_model(str(path), str(tmp_path / "m.vkplan"))
    (entry,) = entries(folder)
    assert entry.read_bytes() == (tmp_path / "m.vkplan").read_bytes()


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None])
def test_a_damaged_entry_is_a_miss(
    damage: bytes | None, folder: Path, read: list[str], tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.onnx", network())
    x = floats(1, 3, 8, 8)
    first = outputs(path, x)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    entry.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    np.testing.assert_array_equal(outputs(path, x), first)
    assert len(read) == 2
    np.testing.assert_array_equal(outputs(path, x), first)
    assert len(read) == 2, "the entry was made anew"


def test_switched_off(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    outputs(saved(tmp_path / "m.onnx", network()), floats(1, 3, 8, 8))
    assert not entries(folder)


def test_not_for_the_reference_device_nor_for_a_model_in_memory(
    folder: Path, tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.onnx", network())
    outputs(path, floats(1, 3, 8, 8), "reference")
    outputs(network(), floats(1, 3, 8, 8))
    assert not entries(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "file"))
    path = saved(tmp_path / "m.onnx", network())
    x = floats(1, 3, 8, 8)
    np.testing.assert_allclose(
        outputs(path, x), outputs(path, x, "reference"), rtol=1e-4, atol=1e-5
    )


def test_the_entries_used_longest_ago_go(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [saved(tmp_path / f"{i}.onnx", network(seed=i)) for i in range(4)]
    x = floats(1, 3, 8, 8)
    for path in paths[:3]:
        outputs(path, x)
    size = max(e.stat().st_size for e in entries(folder))
    for age, entry in enumerate(entries(folder)):
        os.utime(entry, (1000 + age, 1000 + age))
    outputs(paths[0], x)  # used now
    recent = max(entries(folder), key=lambda e: e.stat().st_mtime)
    monkeypatch.setattr(plan_cache, "MAX_BYTES", 2 * size + size // 2)
    outputs(paths[3], x)
    left = entries(folder)
    assert len(left) == 2 and recent in left


def test_a_plan_that_is_too_large_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_cache, "MAX_ENTRY", 1)
    outputs(saved(tmp_path / "m.onnx", network()), floats(1, 3, 8, 8))
    assert not entries(folder)


@pytest.mark.parametrize(("height", "seconds", "kept"), [(8, 9.0, 1), (8, 1.0, 0), ("h", 9.0, 0)])
def test_the_reading_that_it_spares_counts(
    height: int | str, seconds: float, kept: int, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A model of open sizes is read anyway."""
    original = loading.read_onnx
    monkeypatch.setattr(loading, "read_onnx", lambda m: replace(original(m), seconds=seconds))
    monkeypatch.setattr(plan_cache, "WORTH_KEEPING", 5.0)
    outputs(saved(tmp_path / "m.onnx", network(height=height)), floats(1, 3, 8, 8))
    assert len(entries(folder)) == kept


def test_nor_is_one_looked_for_that_no_onnx_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.onnx", network())
    assert plan_cache.is_candidate(path)
    monkeypatch.setattr(plan_cache, "LARGEST_FILE", path.stat().st_size - 1)
    assert not plan_cache.is_candidate(path)
