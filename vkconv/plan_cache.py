"""Plans kept on disk between runs: a model loaded once need not be read and planned again.

An entry is a plan file (``plan_file``) in the user's cache folder. Its name is a digest of all that
decides a plan: the model's bytes and those of its external data, the input shapes, the device, its
driver and capabilities, and the files of this package. Of large weights only the places count, as
long as planning did not look into them: the entry says how to pack them from the model's file, and
serves whatever they hold; those that were looked into are held against a digest in the entry.
Nothing in here may fail: an entry that is missing, stale or damaged is a miss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.errors import VkconvError
from vkconv.files import cache_folder, remove_leftovers
from vkconv.model_file import LARGEST_FILE, Outline, read_outline
from vkconv.plan_file import CompiledModel, Encoded, check_device, encode, read_compiled
from vkconv.stored_arrays import StoredWeight

FOLDER = "plans"
#: the folder does not grow beyond this; the entries used longest ago go first
MAX_BYTES = 2 << 30
#: a plan that holds more than this is not kept: it would push all others out
MAX_ENTRY = MAX_BYTES // 4
#: models of fewer bytes are planned faster than looked up
SMALLEST_MODEL = 256 << 10
#: seconds of reading and planning below which a plan is not kept
WORTH_KEEPING = 0.1
#: how ONNX names a file with tensors: the entry "location" of external_data (protobuf fields 1, 2)
_WORD = b"location"
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
#: bytes before the word
_BEFORE = 2
#: bytes of a file that are looked at together
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
            return SMALLEST_MODEL <= len(source) <= LARGEST_FILE
        path = isinstance(source, (str, os.PathLike))
        return path and SMALLEST_MODEL <= os.stat(source).st_size <= LARGEST_FILE
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Named:
    """A model's outline, if it has large weights, and a digest of all but these."""

    digest: bytes
    outline: Outline | None

    @property
    def prefix(self) -> str:
        """What the names of its plans begin with."""
        return f"{self.digest.hex()[:16]}-"

    @property
    def weights(self) -> Sequence[StoredWeight]:
        return () if self.outline is None else self.outline.in_order


def name_model(source: Any) -> Named | None:
    """Names a model (a candidate) by its content; None where what it depends on cannot be told."""
    try:
        outline = read_outline(source)
        is_bytes = isinstance(source, (bytes, bytearray, memoryview))
        if outline is not None:
            data = outline.data
        else:
            data = bytes(source) if is_bytes else Path(source).read_bytes()
        found = hashlib.sha256(data if outline is None else outline.digest())
        names = _files_named(data)
        if is_bytes and names:
            return None
        for name in names:
            found.update(b"\0" + name)
            with open(Path(source).parent / os.fsdecode(name), "rb") as file:
                while piece := file.read(_PIECE):
                    found.update(piece)
        return Named(found.digest(), outline)
    except (OSError, ValueError):
        return None


def has_plans(model: Named) -> bool:
    """Whether there is any plan of it, for whatever device."""
    try:
        return any((cache_folder() / FOLDER).glob(f"{model.prefix}*.vkplan"))
    except (RuntimeError, OSError):
        return False


def _files_named(data: bytes) -> list[bytes]:
    """The files that a model may name for its tensors. Raises ValueError where one is written
    otherwise.

    Found without protobuf: a word in a small weight that looks like a name only makes the digest
    depend on one more file.
    """
    names: set[bytes] = set()
    at = data.find(_WORD)
    while at >= 0:
        match = _LOCATION.match(data, max(at - _BEFORE, 0))
        if match is None:
            raise ValueError("a location that is written otherwise")
        names.add(data[match.end() : match.end() + match.group(1)[0]])
        at = data.find(_WORD, at + 1)
    return sorted(names)


class PlanCache:
    """The kept plans of one model on one device."""

    def __init__(self, model: Named, more: bytes, info: DeviceInfo, caps: DeviceCaps) -> None:
        """``more``: what else decides a plan."""
        self._model, self._more, self._info, self._caps = model, more, info, caps

    def find(self, shapes: Shapes | None) -> CompiledModel | None:
        """The plan for these input shapes, or None. ``shapes`` None: those the model fixes."""
        path = self._path(shapes)
        if path is None or not path.is_file():
            return None
        try:
            found = read_compiled(path, self._model.weights)
            check_device(found, self._info, self._caps)
        except VkconvError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used now
        return found

    def keep(self, shapes: Shapes | None, model: CompiledModel, seconds: float) -> Kept | None:
        """A plan to be kept, if it took a while (``seconds``) to make."""
        path = self._path(shapes) if seconds >= WORTH_KEEPING else None
        if path is None:
            return None
        try:
            encoded = encode(model, _version(), self._model.weights)
            if encoded.array_bytes > MAX_ENTRY:
                encoded.release()
                return None
            return Kept(path, encoded)
        except (VkconvError, ValueError):
            return None

    def _path(self, shapes: Shapes | None) -> Path | None:
        model = self._model.digest + self._more
        facts = (model, shapes, self._info.name, self._info.driver, self._caps)
        key = hashlib.sha256(repr((facts, _code())).encode()).hexdigest()
        try:
            return cache_folder() / FOLDER / f"{self._model.prefix}{key}.vkplan"
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
