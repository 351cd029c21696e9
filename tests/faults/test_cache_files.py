"""The files kept between runs, damaged, foreign or not to be written: a miss, and made anew."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession, plan_cache
from vkconv.device.vulkan import pipeline_cache
from vkconv.ir import Array
from vkconv.plan_file import read_compiled
from vkconv.tuning.record import Target, Timing, read_record, save_record

ROOT = Path(__file__).parents[2]
PROTO = model(
    [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Conv", "b v", "y")],
    {"x": [1, 8, 6, 5]},
    {"y": None},
    {"w": floats(8, 8, 1, 1), "v": floats(3, 8, 3, 3)},
).SerializeToString()
X = floats(1, 8, 6, 5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, in which every plan is worth keeping."""
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VKCONV_DISABLE", "")
    monkeypatch.delenv("VKCONV_TUNING", raising=False)
    monkeypatch.setattr(plan_cache, "SMALLEST_MODEL", 1)
    monkeypatch.setattr(plan_cache, "WORTH_KEEPING", 0.0)
    return tmp_path / "cache"


def outputs() -> Array:
    with InferenceSession(PROTO) as session:
        (y,) = session.run(None, {"x": X})
    for thread in threading.enumerate():
        if thread.name == "vkconv-keep-plan":
            thread.join()
    return y


def keep_findings(folder: Path) -> None:
    """What tuning does at its end."""
    target = Target("a device", "a driver", "1.0", "")
    save_record(folder / "tuning.json", target, {"conv": Timing("a", 1.0, "b", 2.0)})


#: pattern of the name, and whether its content is as it should be
FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pipelines": ("*.pipelines", pipeline_cache.read),
    "plan": ("plans/*.vkplan", read_compiled),
    "tuning": ("tuning.json", read_record),
}


def with_byte(data: bytes, place: float) -> bytes:
    """One bit turned over, at a part of the length."""
    k = min(int(place * len(data)), len(data) - 1)
    return data[:k] + bytes([data[k] ^ 0x10]) + data[k + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "last byte gone": lambda data: data[:-1],
    "garbage": lambda data: np.random.default_rng(0).bytes(len(data)),
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + data,
    # the head names the version, and the device follows it
    **{f"bit at {place}": lambda d, p=place: with_byte(d, p) for place in (0, 0.01, 0.3, 0.6, 1)},
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_a_miss_and_made_anew(
    kind: str, damage: str, folder: Path, recwarn: pytest.WarningsRecorder
) -> None:
    expected = outputs()
    keep_findings(folder)
    pattern, read = FILES[kind]
    (path,) = folder.glob(pattern)
    damaged = DAMAGE[damage](path.read_bytes())
    path.write_bytes(damaged)
    recwarn.clear()
    np.testing.assert_allclose(outputs(), expected, rtol=1e-4, atol=1e-5)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
    keep_findings(folder)
    (path,) = folder.glob(pattern)
    assert read(path), "it is whole again"
    if kind != "tuning":  # a bit in a figure of a record makes another figure
        assert path.read_bytes() != damaged
    assert not list(folder.rglob(".vkconv-*")), "no temporary file is left"


@pytest.mark.parametrize("kind", ["no folder can be made", "a file is in the way", "full"])
def test_a_cache_folder_that_cannot_be_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept, and nothing is said about it."""
    expected = outputs()
    place = {"no folder can be made": "/proc/vkconv", "full": str(tmp_path / "full")}.get(kind)
    if place is None:
        (tmp_path / "file").write_text("here")
        place = str(tmp_path / "file")
    if kind == "full":

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
    monkeypatch.setenv("VKCONV_CACHE_DIR", place)
    np.testing.assert_allclose(outputs(), expected, rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.rglob(".vkconv-*"))


#: only while our files are written: newer Mesa keeps device memory in files without a name, and
#: dies where these may not grow
FULL = """
import atexit, contextlib, resource, sys
atexit.register(lambda: print(refused))  # behind all others
from vkconv import files, plan_cache
from tests.faults import test_cache_files as t

plain, refused = files.replacing, []

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

@contextlib.contextmanager
def replacing(path, what):
    try:
        with plain(path, what) as temporary:
            limit(int(sys.argv[1]))
            try:
                yield temporary
            finally:
                limit(resource.RLIM_INFINITY)
    except files.InvalidInputError as error:
        refused.append(str(error))
        raise

for module in list(sys.modules.values()):
    if getattr(module, "replacing", None) is plain:
        module.replacing = replacing
plan_cache.SMALLEST_MODEL, plan_cache.WORTH_KEEPING = 1, 0.0
y = t.outputs()
print(float(y.sum()))
"""


@pytest.mark.parametrize("room", [0, 100, 2000])
def test_a_disk_that_is_full_after_some_bytes(room: int, folder: Path) -> None:
    """The kernel refuses to let our files grow beyond ``room`` bytes."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(room)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MESA_SHADER_CACHE_DISABLE": "1"},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    total, refused = done.stdout.splitlines()
    assert float(total) == pytest.approx(float(outputs().sum()), rel=1e-4)
    assert "cannot write a plan" in refused
    assert "cannot write compiled pipelines" in refused or room, "some drivers give a few bytes"
    assert not list(folder.rglob(".vkconv-*"))
    for pattern, read in FILES.values():
        for path in folder.glob(pattern):
            assert read(path), f"{path} is whole or not there"
