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
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.errors import VkconvError
from vkconv.files import cache_folder, remove_leftovers
from vkconv.plan_file import CompiledModel, Encoded, check_device, encode, read_compiled

FOLDER = "plans"
#: the folder does not grow beyond this; the entries used longest ago go first
MAX_BYTES = 2 << 30
#: a plan of more than this is not kept: it would push all others out, and weights of half a
#: gigabyte (fully connected layers) are packed as fast as they are read, and checked
MAX_ENTRY = MAX_BYTES // 4
#: models of fewer bytes are planned faster than looked up; of more, their plans are not kept
SMALLEST_MODEL = 256 << 10
LARGEST_MODEL = MAX_ENTRY
#: seconds of reading and planning below which a plan is not kept
WORTH_KEEPING = 0.1
#: how ONNX names a file with tensors: the entry "location" of external_data (protobuf fields 1, 2)
_WORD = b"location"
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
#: bytes before the word, and of the whole entry
_BEFORE = 2
_LONGEST_ENTRY = _BEFORE + len(_WORD) + 2 + 127
#: bytes of a model that are looked at together
_PIECE = 1 << 20

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
            return SMALLEST_MODEL <= len(source) <= LARGEST_MODEL
        path = isinstance(source, (str, os.PathLike))
        return path and SMALLEST_MODEL <= os.stat(source).st_size <= LARGEST_MODEL
    except (OSError, ValueError):
        return False


def model_digest(source: Any) -> bytes | None:
    """Names a model (a candidate) by its content; None where what it depends on cannot be told."""
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            content = _Content(hashlib.sha256())
            content.add(bytes(source))
            return None if content.files() else content.digest.digest()
        found = hashlib.sha256()
        content = _Content(found)
        _read(Path(source), content.add)
        for name in content.files():
            found.update(b"\0" + name)
            _read(Path(source).parent / os.fsdecode(name), found.update)
        return found.digest()
    except (OSError, ValueError):
        return None


class _Content:
    """A digest of a model's bytes, and the files that it may name for its tensors.

    Read in pieces and without protobuf: a word in the weights that looks like a name only makes the
    digest depend on one more file.
    """

    def __init__(self, digest: Any) -> None:
        self.digest = digest
        self._names: set[bytes] = set()
        #: the end of what came, in which a name may begin
        self._rest = bytes(_BEFORE)

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        self._search(self._rest + piece, last=False)

    def files(self) -> list[bytes]:
        """The names, once all is added. Raises ValueError where one is written otherwise."""
        self._search(self._rest, last=True)
        return sorted(self._names)

    def _search(self, data: bytes, last: bool) -> None:
        """Looks at every word "location" that is in ``data`` with all that may belong to it."""
        until = len(data) if last else max(0, len(data) - _LONGEST_ENTRY)
        at = data.find(_WORD, _BEFORE)
        while 0 <= at < until:
            match = _LOCATION.match(data, at - _BEFORE)
            if match is None:
                raise ValueError("a location that is written otherwise")
            self._names.add(data[match.end() : match.end() + match.group(1)[0]])
            at = data.find(_WORD, at + 1)
        self._rest = data[max(0, until - _BEFORE) :]


def _read(path: Path, use: Callable[[bytes], None]) -> None:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            use(piece)


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

    def keep(self, shapes: Shapes | None, model: CompiledModel) -> Kept | None:
        """A plan to be kept, if it took a while to make."""
        size = sum(s.size for s in model.planned.plan.constants)
        slow = time.perf_counter() - self._began >= WORTH_KEEPING
        path = self._path(shapes) if slow and size <= MAX_ENTRY else None
        if path is None:
            return None
        try:
            return Kept(path, encode(model, _version()))
        except (VkconvError, ValueError):
            return None

    def _path(self, shapes: Shapes | None) -> Path | None:
        facts = (self._model, shapes, self._info.name, self._info.driver, self._caps)
        key = hashlib.sha256(repr((facts, _code())).encode()).hexdigest()
        try:
            return cache_folder() / FOLDER / f"{key}.vkplan"
        except (RuntimeError, OSError):  # no home folder
            return None


@dataclass(frozen=True)
class Kept:
    """An entry to be written. The weights are read where they are by then: on the device, if the
    host reaches its memory."""

    path: Path
    model: Encoded

    def write(self) -> None:
        """Never fails: an entry is written whole or not at all."""
        with contextlib.suppress(OSError, VkconvError, ValueError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.model.write(str(self.path), "a plan")
            prune(self.path.parent, self.path)
            remove_leftovers(self.path.parent)


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
