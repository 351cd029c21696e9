"""Large weights of a model file, read straight into arrays of their own.

protobuf would have the file in memory, then a copy of every weight, then another when it is asked
for. Here the file is walked over once: what is no weight is handed to protobuf, and in the place of
each weight's bytes stands a token that finds its array. Only the outline of the format matters
(https://protobuf.dev/programming-guides/encoding), down to

    ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.raw_data = 9

A file that departs from it in any way is left to protobuf, and so are the messages about it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from io import BufferedReader

import numpy as np

from vkconv.ir import Array

#: weights of fewer bytes stay where they are: among them is all that shapes are computed from
LEAST_BYTES = 64 << 10
#: bytes of a token: drawn anew for every file, so that none can hold one of its own making
TOKEN_BYTES = 32

#: fields looked at one by one: a file of more is no model of any exporter
MOST_FIELDS = 1_000_000

#: bytes of raw data by token
Weights = Mapping[bytes, Array]

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class _Irregular(Exception):
    """The file is not what it seems; protobuf shall see it."""


def without_weights(file: BufferedReader, size: int) -> tuple[bytes, Weights] | None:
    """A serialized ModelProto of ``size`` bytes without its large weights, and these; None where it
    is better read as a whole."""
    walk = _Walk(file)
    try:
        data = walk.message(size, [_GRAPH, _INITIALIZER])
    except (_Irregular, MemoryError):
        return None
    return (data, walk.weights) if walk.weights else None


class _Walk:
    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._at = self._fields = 0
        self._draw = secrets.token_bytes(TOKEN_BYTES - 8)
        self.weights: dict[bytes, Array] = {}

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
        """Reads a weight; the token for it."""
        array = np.empty(length, np.uint8)
        view, done = array.data, 0
        while done < length:
            count = self._file.readinto(view[done:])
            if not count:
                raise _Irregular
            done += count
        array.flags.writeable = False
        self._at += length
        token = self._draw + len(self.weights).to_bytes(8, "little")
        self.weights[token] = array
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


def _encoded(value: int) -> bytes:
    """A varint."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
