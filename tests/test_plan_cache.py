"""Plans kept on disk: found by whoever loads the same model again, and never the cause of an
error."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession, compile_model, plan_cache
from vkconv.errors import InvalidModelError
from vkconv.ir import Array
from vkconv.plan_file import Encoded


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which every plan of every model is worth keeping."""
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(plan_cache, "SMALLEST_MODEL", 1)
    monkeypatch.setattr(plan_cache, "WORTH_KEEPING", 0.0)
    return tmp_path / "cache" / plan_cache.FOLDER


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever a session reads an ONNX model."""
    from vkconv import loading

    found: list[str] = []
    original = loading.read_onnx

    def counted(source: object) -> loading.LoadedModel:
        found.append(str(source))
        return original(source)

    monkeypatch.setattr(loading, "read_onnx", counted)
    return found


def network(seed: int = 0, height: int | str = 8) -> onnx.ModelProto:
    constants = {"w": floats(4, 3, 3, 3, seed=seed)}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    return model(nodes, {"x": [1, 3, height, 8]}, {"y": None}, constants)


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, path)
    return path


def outputs(source: object, x: Array, device: str = "auto") -> Array:
    with InferenceSession(source, device=device) as session:
        (y,) = session.run(None, {"x": x})
    settle()
    return y


def settle() -> None:
    """Waits for the threads that write."""
    for thread in threading.enumerate():
        if thread.name == "vkconv-keep-plan":
            thread.join()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.vkplan"))


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


def test_a_location_written_in_another_way_is_not_kept() -> None:
    assert plan_cache.model_digest(b"location") is None
    assert plan_cache.model_digest(b"\x0a\x08location\x12\x01w and location") is None
    assert plan_cache.model_digest(b"weights") is not None


def location(name: bytes) -> bytes:
    return b"\x0a\x08location\x12" + bytes([len(name)]) + name


@pytest.mark.parametrize("piece", [1, 7, 150, 1 << 20])
def test_a_digest_is_taken_in_pieces(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever falls between two of them: the names of external files, and words that look so."""
    for name in (b"w", b"n" * 127):
        (tmp_path / name.decode()).write_bytes(b"weights")
    filler = bytes(range(97)) * 4
    whole = filler + location(b"w") + filler + location(b"n" * 127) + filler + location(b"w")
    files = {
        "whole": whole,
        "cut": whole[:-1],
        "word": whole + filler + b"location",
        "first": b"location" + whole,
        "second": b"\x08location" + whole,
        "none": filler,
    }
    for name, data in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(data)
    expected = {name: plan_cache.model_digest(tmp_path / f"{name}.onnx") for name in files}
    assert [name for name, digest in expected.items() if digest is None] == [
        "cut", "word", "first", "second"
    ]  # fmt: skip
    monkeypatch.setattr(plan_cache, "_PIECE", piece)
    for name in files:
        assert plan_cache.model_digest(tmp_path / f"{name}.onnx") == expected[name], name
    (tmp_path / ("n" * 127)).write_bytes(b"others")
    assert plan_cache.model_digest(tmp_path / "whole.onnx") != expected["whole"]
    (tmp_path / "w").unlink()
    assert plan_cache.model_digest(tmp_path / "whole.onnx") is None
    assert plan_cache.model_digest(whole) is None and plan_cache.model_digest(filler) is not None


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
    path = saved(tmp_path / "large.onnx", network(seed=1))
    monkeypatch.setattr(plan_cache, "LARGEST_MODEL", path.stat().st_size - 1)
    assert not plan_cache.is_candidate(path)
    monkeypatch.setattr(plan_cache, "LARGEST_MODEL", path.stat().st_size)
    assert plan_cache.is_candidate(path)
    monkeypatch.setattr(plan_cache, "MAX_ENTRY", 1)
    outputs(saved(tmp_path / "m.onnx", network()), floats(1, 3, 8, 8))
    assert not entries(folder)
