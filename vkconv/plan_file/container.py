r"""The bytes of a .vkplan file: a head, tables as JSON, arrays. No pickle, nothing that runs.

    offset  size  what
    0       8     magic: 89 56 4B 50 4C 41 4E 0A ("\x89VKPLAN\n")
    8       4     version of the format, little-endian like every number here
    12      4     zero
    16      8     bytes of the tables, T
    24      8     bytes of the whole file
    32      32    SHA-256 of the tables
    64      T     the tables: one JSON object in UTF-8, {"arrays": [...], "body": {...}}
    ...           arrays, each at a multiple of 64 bytes

A row of ``arrays`` is [dtype, shape, offset, CRC-32], the offset counted from the start of the
file. Arrays are dense, row-major and little-endian. A file is read into memory of its own, so that
whoever changes it later changes nothing here; arrays are checked by several threads at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from typing import Any

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.files import replacing
from vkconv.ir import Array

MAGIC = b"\x89VKPLAN\n"
VERSION = 1
ALIGNMENT = 64
#: tables of a net of a thousand nodes take a megabyte
LARGEST_TABLES = 256 << 20
#: dtypes that arrays have in a file, with their width
DTYPES = {
    **{f"float{8 * n}": n for n in (2, 4, 8)},
    **{f"{sign}int{8 * n}": n for sign in ("", "u") for n in (1, 2, 4, 8)},
    "bool": 1,
}
_HEAD = struct.Struct("<8sIIQQ32s")
_THREADS = 4

Row = tuple[str, "tuple[int, ...]", int, int]
#: brings bytes [offset, offset + size) of the file to memory; False where the file ends before
Load = Callable[[int, int], bool]


class Writer:
    """Collects arrays (each once, by identity), then writes the file in one go."""

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._places: dict[int, int] = {}

    def add(self, array: Array) -> int:
        """The array's number in the file."""
        if id(array) not in self._places:
            self._places[id(array)] = len(self._arrays)
            self._arrays.append(array)  # kept, so that its id stays its own
        return self._places[id(array)]

    def write(self, path: str, body: dict[str, Any], what: str) -> None:
        """Write a whole file or none. Raises InvalidInputError when it cannot be written."""
        arrays = [_little_endian(a) for a in self._arrays]
        sums = [zlib.crc32(_bytes(a)) for a in arrays]
        # where arrays lie depends on the size of the tables, and that on where they lie: offsets
        # are written with as many digits as the largest can have
        length = _HEAD.size + len(_tables(arrays, [2**48] * len(arrays), sums, body)) + ALIGNMENT
        offsets = []
        for array in arrays:
            length = _aligned(length)
            offsets.append(length)
            length += array.nbytes
        tables = _tables(arrays, offsets, sums, body)
        head = _HEAD.pack(MAGIC, VERSION, 0, len(tables), length, hashlib.sha256(tables).digest())
        with replacing(path, what) as temporary, open(temporary, "wb") as file:
            file.write(head)
            file.write(tables)
            for offset, array in zip(offsets, arrays, strict=True):
                file.write(bytes(offset - file.tell()))
                file.write(_bytes(array))
            file.write(bytes(length - file.tell()))


class Reader:
    """A file whose head, tables and arrays are whole. Raises InvalidModelError where they aren't.

    source: a path, or the file's bytes. ``body`` is what the writer was given, still to be checked
    by whoever reads it; ``array`` gives arrays, read-only.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        if isinstance(source, bytes):
            self.label = "the plan"
            self._data = np.frombuffer(source, np.uint8)
            self._load: Load = _nothing
            self._open(len(source))
            return
        self.label = f"'{os.fspath(source)}'"
        try:
            with open(source, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                self._data = np.empty(size, np.uint8)
                self._load = _from_file(file, self._data)
                self._open(size)
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or error or "not enough memory"
            raise InvalidModelError(f"plan file {self.label} cannot be read: {why}") from None

    def array(self, number: Any) -> Array:
        """The array of that number."""
        if type(number) is not int or not 0 <= number < len(self._rows):
            raise self.invalid(f"it has no array {number!r:.40}")
        dtype, shape, offset, _ = self._rows[number]
        size = _size(dtype, shape)
        array = self._data[offset : offset + size].view(dtype).reshape(shape)
        if dtype == "bool":
            array = np.asarray(array.view(np.uint8) != 0)  # a byte may hold anything
        array.flags.writeable = False
        return array

    def invalid(self, why: str) -> InvalidModelError:
        """The error for this file."""
        return InvalidModelError(
            f"plan file {self.label} is damaged: {why}; make it again with 'vkconv compile'"
        )

    def _open(self, size: int) -> None:
        if size < _HEAD.size:
            raise self.invalid("it is shorter than its head")
        if not self._load(0, _HEAD.size):
            raise self.invalid("it was cut while being read")
        magic, version, _, tables, length, digest = _HEAD.unpack(self._data[: _HEAD.size].tobytes())
        if magic != MAGIC:
            raise InvalidModelError(f"{self.label} is no plan file")
        if version != VERSION:
            raise InvalidModelError(
                f"plan file {self.label} has format {version}, this version of vkconv reads "
                f"{VERSION}; make it again with 'vkconv compile'"
            )
        if length != size:
            raise self.invalid(f"it should have {length} bytes and has {size}")
        if tables > min(size - _HEAD.size, LARGEST_TABLES):
            raise self.invalid("its tables are larger than the file")
        if not self._load(_HEAD.size, tables):
            raise self.invalid("it was cut while being read")
        text = self._data[_HEAD.size : _HEAD.size + tables].tobytes()
        if hashlib.sha256(text).digest() != digest:
            raise self.invalid("the checksum of its tables does not match")
        try:
            content = json.loads(text)
            self._rows = [self._row(row, size) for row in content["arrays"]]
            self.body: dict[str, Any] = dict(content["body"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"its tables cannot be read ({type(error).__name__})"
            raise self.invalid(why) from None
        if sum(_size(dtype, shape) for dtype, shape, _, _ in self._rows) > size:
            raise self.invalid("its arrays are larger than the file")
        self._check_arrays()

    def _row(self, row: Any, size: int) -> Row:
        dtype, shape, offset, crc = row
        numbers = [offset, crc, *shape]
        if dtype not in DTYPES or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
            raise self.invalid(f"{row!r:.80} describes no array")
        if offset % ALIGNMENT or offset + _size(dtype, shape) > size or len(shape) > 32:
            raise self.invalid(f"an array leaves the file ({row!r:.80})")
        return dtype, tuple(shape), offset, crc

    def _check_arrays(self) -> None:
        """Reads every array and holds it against its checksum."""

        def whole(row: Row) -> bool:
            dtype, shape, offset, crc = row
            size = _size(dtype, shape)
            if not self._load(offset, size):
                return False
            return zlib.crc32(self._data[offset : offset + size].data) == crc

        with ThreadPoolExecutor(_THREADS, "vkconv-read") as threads:
            if not all(threads.map(whole, self._rows)):
                raise self.invalid("the checksum of an array does not match")


def is_plan(source: Any) -> bool:
    """Whether a model, as a session takes it, is a plan file or its bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source[: len(MAGIC)]) == MAGIC
    if not isinstance(source, (str, os.PathLike)):
        return False
    try:
        with open(source, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return os.fspath(source).endswith(".vkplan") if isinstance(source, str) else False


def _from_file(file: FileIO, data: Array) -> Load:
    """Reads a part of ``file`` to the same place in ``data``; False where the file ends before.
    Threads may call it."""
    lock = threading.Lock()

    def read(target: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(file.fileno(), [target], offset)
        with lock:  # Windows
            file.seek(offset)
            return file.readinto(target) or 0

    def load(offset: int, size: int) -> bool:
        done = 0
        while done < size:
            count = read(data[offset + done : offset + size].data, offset + done)
            if count == 0:
                return False
            done += count
        return True

    return load


def _nothing(_: int, __: int) -> bool:
    return True


def _tables(arrays: list[Array], offsets: list[int], sums: list[int], body: Any) -> bytes:
    rows = [
        [a.dtype.name, list(a.shape), offset, crc]
        for a, offset, crc in zip(arrays, offsets, sums, strict=True)
    ]
    return json.dumps({"arrays": rows, "body": body}, separators=(",", ":")).encode()


def _little_endian(array: Array) -> Array:
    if array.dtype.name not in DTYPES:
        raise ValueError(f"an array of {array.dtype} has no form in a plan file")
    dense = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return dense.reshape(array.shape)  # ascontiguousarray makes a scalar one-dimensional


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _size(dtype: str, shape: Any) -> int:
    size = DTYPES[dtype]
    for dim in shape:
        size *= dim
    return size


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
