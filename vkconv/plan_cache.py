"""Plans kept on disk between runs: a model loaded once need not be read and planned again.

An entry is a plan file (``plan_file``) in the user's cache folder. Its name is a digest of all that
decides a plan: the model's bytes and those of its external data, the input shapes, the device, its
driver and capabilities, and the files of this package. Nothing in here may fail: an entry that is
missing, stale or damaged is a miss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.errors import VkconvError
from vkconv.files import cache_folder, remove_leftovers
from vkconv.plan_file import CompiledModel, check_device, encode, read_compiled

FOLDER = "plans"
#: the folder does not grow beyond this; the entries used longest ago go first
MAX_BYTES = 1 << 30
#: a plan of more than this is not kept: it would push all others out
MAX_ENTRY = MAX_BYTES // 4
#: models of fewer bytes are planned faster than looked up
SMALLEST_MODEL = 256 << 10
#: seconds of reading and planning below which a plan is not kept
WORTH_KEEPING = 0.1
#: how ONNX names a file with tensors: the entry "location" of external_data (protobuf fields 1, 2)
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")

Shapes = Sequence[tuple[int, ...]]


def is_enabled() -> bool:
    """Whether VKCONV_DISABLE leaves it on."""
    names = os.environ.get("VKCONV_DISABLE", "").split(",")
    return "plan_cache" not in (name.strip() for name in names)


def is_candidate(source: Any) -> bool:
    """Whether plans of a model (a path or bytes) may be kept: not those of small ones, nor of a
    ModelProto."""
    if not is_enabled():
        return False
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            return len(source) >= SMALLEST_MODEL
        path = isinstance(source, (str, os.PathLike))
        return path and SMALLEST_MODEL <= os.stat(source).st_size < 1 << 31
    except (OSError, ValueError):
        return False


def model_digest(source: Any) -> bytes | None:
    """Names a model (a candidate) by its content; None where what it depends on cannot be told."""
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            data, folder = bytes(source), None
        else:
            data, folder = Path(source).read_bytes(), Path(source).parent
        found = hashlib.sha256(data)
        for name in _external_files(data):
            if folder is None:
                return None
            found.update(b"\0" + name)
            _add_file(found, folder / os.fsdecode(name))
        return found.digest()
    except (OSError, ValueError):
        return None


def _external_files(data: bytes) -> list[bytes]:
    """Files that an ONNX model may name for its tensors. Raises ValueError where that is unclear.

    Read without protobuf: a word in the weights that looks like a name only makes the digest depend
    on one more file.
    """
    if data.count(b"location") == 0:
        return []
    matches = list(_LOCATION.finditer(data))
    if len(matches) < data.count(b"location"):
        raise ValueError("a location that is written otherwise")
    return sorted({data[m.end() : m.end() + m.group(1)[0]] for m in matches})


def _add_file(found: Any, path: Path) -> None:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)


class PlanCache:
    """The kept plans of one model on one device."""

    def __init__(self, model: bytes, info: DeviceInfo, caps: DeviceCaps) -> None:
        self._model, self._info, self._caps = model, info, caps
        self._began = time.perf_counter()

    def find(self, shapes: Shapes | None) -> CompiledModel | None:
        """The plan for these input shapes, or None. ``shapes`` None: those the model fixes."""
        path = self._path(shapes)
        if path is None or not path.is_file():
            self._began = time.perf_counter()
            return None
        try:
            found = read_compiled(path)
            check_device(found, self._info, self._caps)
        except VkconvError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used now
        return found

    def keep(self, shapes: Shapes | None, model: CompiledModel) -> None:
        """Writes a plan that took a while to make, on a thread: loading goes on meanwhile. The
        process waits for it before it ends."""
        size = sum(s.size for s in model.planned.plan.constants)
        slow = time.perf_counter() - self._began >= WORTH_KEEPING
        path = self._path(shapes) if slow and size <= MAX_ENTRY else None
        if path is None:
            return
        try:
            write = encode(model, _version())
        except VkconvError:
            return

        def store() -> None:
            with contextlib.suppress(OSError, VkconvError, ValueError):
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write(str(path), "a plan")
                prune(path.parent, path)
                remove_leftovers(path.parent)

        threading.Thread(target=store, name="vkconv-keep-plan").start()

    def _path(self, shapes: Shapes | None) -> Path | None:
        facts = (self._model, shapes, self._info.name, self._info.driver, self._caps)
        key = hashlib.sha256(repr((facts, _code())).encode()).hexdigest()
        try:
            return cache_folder() / FOLDER / f"{key}.vkplan"
        except (RuntimeError, OSError):  # no home folder
            return None


def prune(folder: Path, newest: Path) -> None:
    """Deletes the entries used longest ago until the folder is within MAX_BYTES."""
    entries = [(p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob("*.vkplan")]
    room = MAX_BYTES
    for _, size, path in sorted(entries, key=lambda e: (e[2] != newest, -e[0])):
        room -= size
        if room < 0 and path != newest:
            with contextlib.suppress(OSError):
                path.unlink()


@cache
def _code() -> str:
    """Names the state of this package: a plan from other code may be another plan."""
    found = hashlib.sha256(_version().encode())
    for entry in sorted(_files(os.path.dirname(__file__)), key=lambda e: e.path):
        about = entry.stat()
        found.update(f"{entry.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                yield entry


def _version() -> str:
    import vkconv

    return vkconv.__version__
