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
file. Arrays are dense, row-major and little-endian. Each is read to where it is wanted, a device's
memory mostly, and held against its checksum there. A file is never mapped: whoever cuts a mapped
file short kills the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.files import reading, reading_bytes, replacing
from vkconv.ir import Array
from vkconv.storage import Packing, Storage
from vkconv.stored_arrays import StoredWeight

MAGIC = b"\x89VKPLAN\n"
#: 2: plans of 1 may let a node write over a part of a Concat that is read later
VERSION = 2
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
#: bytes that are held against a checksum at a time: they stay in the processor's cache
PIECE = 1 << 19

Row = tuple[str, "tuple[int, ...]", int, int]


class Writer:
    """Collects arrays and constants (each once, by identity), then writes the file in one go.

    Constants that are packed when they are asked for are so one at a time. ``release`` says that
    nothing will be written any more. ``weights``: those of the model's file, by their number, where
    whoever reads the file will have them too.
    """

    def __init__(self, weights: Sequence[StoredWeight] = ()) -> None:
        self.weights = weights
        self._items: list[Array | Storage] = []
        self._kinds: list[tuple[str, tuple[int, ...]]] = []
        self._places: dict[int, int] = {}

    def add(self, item: Array | Storage) -> int:
        """The number in the file of an array, or of the elements of a constant. Raises ValueError
        on arrays of strings or objects."""
        if id(item) not in self._places:
            self._places[id(item)] = len(self._items)
            self._items.append(item)  # kept, so that its id stays its own
            self._kinds.append(_kind(item))
            if isinstance(item, Storage):
                item.want()
        return self._places[id(item)]

    @property
    def array_bytes(self) -> int:
        return sum(_size(*kind) for kind in self._kinds)

    def write(self, path: str, body: dict[str, Any], what: str) -> None:
        """Write a whole file or none. Raises InvalidInputError when it cannot be written,
        ValueError where a constant is gone."""
        # where arrays lie depends on the size of the tables, and that on where they lie and what
        # they hold: there is room for numbers of as many digits as the largest can have
        widest = [(*kind, 2**48, 2**32 - 1) for kind in self._kinds]
        length = _HEAD.size + len(_tables(widest, body))
        offsets = []
        for dtype, shape in self._kinds:
            length = _aligned(length)
            offsets.append(length)
            length += _size(dtype, shape)
        with replacing(path, what) as temporary, open(temporary, "wb") as file:
            rows = []
            for item, kind, offset in zip(self._items, self._kinds, offsets, strict=True):
                file.seek(offset)
                rows.append((*kind, offset, _write_item(item, file)))
            tables = _tables(rows, body)
            digest = hashlib.sha256(tables).digest()
            file.truncate(length)
            file.seek(0)
            file.write(_HEAD.pack(MAGIC, VERSION, 0, len(tables), length, digest))
            file.write(tables)

    def release(self) -> None:
        """Constants that were kept to be written may go."""
        for item in self._items:
            if isinstance(item, Storage):
                item.release()


class Reader:
    """A file whose head and tables are whole. Raises InvalidModelError where they aren't, and where
    an array is not when it is read.

    source: a path, or the file's bytes. ``body`` is what the writer was given, still to be checked
    by whoever reads it; ``array`` gives arrays, read-only, and ``packing`` those that a device
    takes, which are read when it does. A file stays open until nobody can ask for them any more.
    ``weights``: of the model's file, for a plan without them.
    """

    def __init__(
        self, source: str | os.PathLike[str] | bytes, weights: Sequence[StoredWeight] = ()
    ) -> None:
        self.weights = weights
        self._arrays: dict[int, Array] = {}
        if isinstance(source, bytes):
            self.label = "the plan"
            self._load = reading_bytes(source)
            self._open(len(source))
            return
        self.label = f"'{os.fspath(source)}'"
        try:
            file = open(source, "rb", buffering=0)  # noqa: SIM115 (closed with its last reader)
            self._load = reading(file)
            close = weakref.finalize(self._load, file.close)
            try:
                self._open(os.fstat(file.fileno()).st_size)
            except BaseException:
                close()
                raise
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or error or "not enough memory"
            raise InvalidModelError(f"plan file {self.label} cannot be read: {why}") from None

    def kind(self, number: Any) -> tuple[str, tuple[int, ...]]:
        """dtype and shape of the array of that number."""
        if type(number) is not int or not 0 <= number < len(self._rows):
            raise self.invalid(f"it has no array {number!r:.40}")
        dtype, shape, _, _ = self._rows[number]
        return dtype, shape

    def array(self, number: Any) -> Array:
        """The array of that number."""
        dtype, shape = self.kind(number)
        if number not in self._arrays:
            array = np.empty(shape, dtype)
            self._read(number, array)
            if dtype == "bool":
                array = np.asarray(array.view(np.uint8) != 0)  # a byte may hold anything
            array.flags.writeable = False
            self._arrays[number] = array
        return self._arrays[number]

    def packing(self, number: Any) -> Packing:
        """The array of that number, to be read straight to where it is wanted."""
        dtype, shape = self.kind(number)
        return Packing(shape, lambda target: self._read(number, target), dtype)

    def _read(self, number: int, target: Array) -> None:
        """Reads an array, and checks it."""
        _, _, offset, crc = self._rows[number]
        data = target.reshape(-1).view(np.uint8).data
        if not self._load(data, offset):
            raise self.invalid("it was cut while being read")
        if zlib.crc32(data) != crc:
            raise self.invalid("the checksum of an array does not match")

    def invalid(self, why: str) -> InvalidModelError:
        """The error for this file."""
        return InvalidModelError(
            f"plan file {self.label} is damaged: {why}; make it again with 'vkconv compile'"
        )

    def _open(self, size: int) -> None:
        if size < _HEAD.size:
            raise self.invalid("it is shorter than its head")
        head = self._part(0, _HEAD.size)
        magic, version, _, tables, length, digest = _HEAD.unpack(head)
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
        text = self._part(_HEAD.size, tables)
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

    def _part(self, offset: int, size: int) -> bytes:
        part = bytearray(size)
        if not self._load(memoryview(part), offset):
            raise self.invalid("it was cut while being read")
        return bytes(part)

    def _row(self, row: Any, size: int) -> Row:
        dtype, shape, offset, crc = row
        numbers = [offset, crc, *shape]
        if dtype not in DTYPES or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
            raise self.invalid(f"{row!r:.80} describes no array")
        if offset % ALIGNMENT or offset + _size(dtype, shape) > size or len(shape) > 32:
            raise self.invalid(f"an array leaves the file ({row!r:.80})")
        return dtype, tuple(shape), offset, crc

    def check_arrays(self) -> None:
        """Holds every array against its checksum, by several threads at once: for whoever has to
        know before the first is wanted."""
        own = threading.local()

        def whole(row: Row) -> bool:
            dtype, shape, offset, crc = row
            size, found = _size(dtype, shape), 0
            if not hasattr(own, "piece"):
                own.piece = memoryview(bytearray(PIECE))
            for first in range(0, size, PIECE):
                piece = own.piece[: min(PIECE, size - first)]
                if not self._load(piece, offset + first):
                    return False
                found = zlib.crc32(piece, found)
            return found == crc

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


def _tables(rows: Sequence[tuple[str, tuple[int, ...], int, int]], body: Any) -> bytes:
    return json.dumps({"arrays": rows, "body": body}, separators=(",", ":")).encode()


def _kind(item: Array | Storage) -> tuple[str, tuple[int, ...]]:
    """dtype and shape of what is written."""
    if isinstance(item, Storage):
        shape, dtype = item.data_type
    else:
        shape, dtype = item.shape, item.dtype.name
    if dtype not in DTYPES:
        raise ValueError(f"an array of {dtype} has no form in a plan file")
    return dtype, tuple(int(d) for d in shape)


def _write_item(item: Array | Storage, file: BinaryIO) -> int:
    """Writes the bytes of an array or a constant; their CRC-32."""
    sums: list[int] = []

    def write(data: Array) -> None:
        sums.append(zlib.crc32(data.data))
        file.write(data.data)

    if isinstance(item, Storage):
        item.read(write)
        item.release()
    else:
        dense = np.ascontiguousarray(item, item.dtype.newbyteorder("<"))
        write(dense.reshape(-1).view(np.uint8))
    return sums[0]


def _size(dtype: str, shape: Any) -> int:
    size = DTYPES[dtype]
    for dim in shape:
        size *= dim
    return size


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
