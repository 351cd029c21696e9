"""An ONNX model's bytes: its outline, and where its large weights are.

protobuf would have the file in memory, then a copy of every weight, then another when it is asked
for. Here the file is walked over once: what is no weight is the outline, for protobuf, and in the
place of each weight's bytes stands a token that finds them. Weights are read when and where they
are wanted, and a plan that needed none of their elements is a plan for whatever they hold. Only the
outline of the format matters (https://protobuf.dev/programming-guides/encoding), down to

    ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.raw_data = 9

A file that departs from it in any way is left to protobuf, and so are the messages about it.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vkconv.errors import InvalidModelError
from vkconv.files import Read, reading, reading_bytes
from vkconv.stored_arrays import Load, StoredWeight

#: weights of fewer bytes stay where they are: among them is all that shapes are computed from
LEAST_BYTES = 64 << 10
#: bytes of a token: drawn anew for every file, so that none can hold one of its own making
TOKEN_BYTES = 32
#: of these the number of the weight
_NUMBER_BYTES = 8
#: fields looked at one by one: a file of more is no model of any exporter
MOST_FIELDS = 1_000_000
#: protobuf itself ends at 2 GiB; larger models keep their tensors in external data
LARGEST_FILE = (1 << 31) - 1

#: by token
Weights = Mapping[bytes, StoredWeight]

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True)
class Outline:
    """A serialized ModelProto short of its large weights, and these.

    label: what messages call the model. path: where it came from, None for bytes. offsets: first
    byte of each weight in the file.
    """

    data: bytes
    weights: Weights
    label: str
    path: Path | None
    offsets: tuple[int, ...]

    @property
    def in_order(self) -> list[StoredWeight]:
        """The weights by their number."""
        return list(self.weights.values())

    def digest(self) -> bytes:
        """SHA-256 of all but what the weights hold."""
        sizes = [w.nbytes for w in self.in_order]
        found = hashlib.sha256(repr((self.offsets, sizes)).encode())
        drawn = next(iter(self.weights))[:-_NUMBER_BYTES]
        found.update(self.data.replace(drawn, b""))
        return found.digest()


def read_outline(source: Any) -> Outline | None:
    """The outline of a model, a path or bytes; None where it has no large weights, or is better
    read as a whole. Raises OSError, ValueError, TypeError where it cannot be read at all."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return _outline(io.BytesIO(data), len(data), reading_bytes(data), "the model", None)
    path = Path(source)
    if not path.is_file():
        return None
    file = open(path, "rb")  # noqa: SIM115 (closed with its last weight)
    read = reading(file)
    close = weakref.finalize(read, file.close)
    found = None
    try:
        size = os.fstat(file.fileno()).st_size
        if size <= LARGEST_FILE:
            found = _outline(file, size, read, f"'{path}'", path)
    finally:
        if found is None:
            close()
    return found


def _outline(
    file: BinaryIO, size: int, read: Read, label: str, path: Path | None
) -> Outline | None:
    walk = _Walk(file, read, label)
    try:
        data = walk.message(size, [_GRAPH, _INITIALIZER])
    except (_Irregular, MemoryError):
        return None
    return Outline(data, walk.weights, label, path, tuple(walk.offsets)) if walk.weights else None


class _Irregular(Exception):
    """The file is not what it seems; protobuf shall see it."""


class _Walk:
    def __init__(self, file: BinaryIO, read: Read, label: str) -> None:
        self._file, self._read, self._label = file, read, label
        self._at = self._fields = 0
        self._draw = secrets.token_bytes(TOKEN_BYTES - _NUMBER_BYTES)
        self.weights: dict[bytes, StoredWeight] = {}
        self.offsets: list[int] = []

    def message(self, end: int, path: list[int]) -> bytes:
        """The message that ends at ``end``, short of the weights in it. ``path``: the fields that
        lead to tensors from here."""
        parts: list[bytes] = []
        while self._at < end:
            tag = self._varint(end)
            field, kind = tag >> 3, tag & 7
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise _Irregular
            if kind == _LENGTH:
                length = self._varint(end)
                last = self._at + length
                if last > end:
                    raise _Irregular
                if length >= LEAST_BYTES and path and field == path[0]:
                    part = self.message(last, path[1:])
                elif length >= LEAST_BYTES and not path and field == _RAW_DATA:
                    part = self._weight(length)
                else:
                    part = self._take(length)
                parts += (_encoded(tag), _encoded(len(part)), part)
            elif kind == _VARINT:
                parts += (_encoded(tag), _encoded(self._varint(end)))
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                parts += (_encoded(tag), self._take(8 if kind == _EIGHT_BYTES else 4))
            else:
                raise _Irregular
        if self._at != end:
            raise _Irregular
        return b"".join(parts)

    def _weight(self, length: int) -> bytes:
        """Passes over a weight; the token for it."""
        number = len(self.weights)
        token = self._draw + number.to_bytes(_NUMBER_BYTES, "little")
        self.weights[token] = StoredWeight(number, length, _part(self._read, self._at, self._label))
        self.offsets.append(self._at)
        self._file.seek(length, os.SEEK_CUR)
        self._at += length
        return token

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise _Irregular
        self._at += length
        return data

    def _varint(self, end: int) -> int:
        value = shift = 0
        while True:
            byte = self._file.read(1)
            if not byte or self._at >= end or shift > 63:
                raise _Irregular
            self._at += 1
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
            shift += 7


def _part(read: Read, start: int, label: str) -> Load:
    """Reads from ``start`` on."""

    def load(target: memoryview, offset: int) -> None:
        if not read(target, start + offset):
            raise InvalidModelError(f"{label} was cut short while it was read; copy it whole")

    return load


def _encoded(value: int) -> bytes:
    """A varint."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
