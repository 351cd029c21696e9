"""A dispatch's named numbers as the bytes a driver takes: specialization and push constants."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

from vkconv.dispatch import Number, PushValue
from vkconv.errors import DeviceError
from vkconv.shaders import PushField, ShaderModule

_FORMATS = {"int": "i", "uint": "I", "float": "f", "bool": "I"}

#: (constant id, four bytes) ordered by id
Specialization: TypeAlias = "tuple[tuple[int, bytes], ...]"


def specialization(module: ShaderModule, spec: Mapping[str, Number]) -> Specialization:
    """(constant id, four bytes) of the named values, ordered by id."""
    fields = {f.name: f for f in module.spec}
    rows = []
    for name, value in spec.items():
        if name not in fields:
            raise DeviceError(f"kernel '{module.kernel}' has no specialization constant '{name}'")
        row = fields[name]
        number = float(value) if row.type == "float" else int(value)
        rows.append((row.id, struct.pack(_FORMATS[row.type], number)))
    return tuple(sorted(rows))


def push_bytes(module: ShaderModule, values: Mapping[str, PushValue], node: str) -> bytes:
    """The push constant block with every named value in its place."""
    block = bytearray(module.push_size)
    names = {f.name for f in module.push}
    if names != set(values):
        wrong = ", ".join(sorted(names ^ set(values)))
        raise DeviceError(
            f"node '{node}', kernel '{module.kernel}': push constants do not match: {wrong}"
        )
    for row in module.push:
        try:
            _pack(block, row, values[row.name])
        except (struct.error, TypeError, ValueError) as error:
            raise DeviceError(
                f"node '{node}', kernel '{module.kernel}': push constant '{row.name}' = "
                f"{values[row.name]!r}: {error}"
            ) from None
    return bytes(block)


def _pack(block: bytearray, row: PushField, value: PushValue) -> None:
    items = [value] if isinstance(value, (int, float)) else list(value)
    convert = float if row.type == "float" else int
    struct.pack_into(f"={row.count}{_FORMATS[row.type]}", block, row.offset, *map(convert, items))
