"""The safetensors format: a JSON header with types, shapes and places, and the numbers behind it.

    8 bytes, little endian: length of the header
    header: {"name": {"dtype": "F16", "shape": [64, 3, 3, 3], "data_offsets": [begin, end]}, ...}
    numbers, from which offsets count

The format cannot hold code. What it says is checked against the file's size all the same.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

import torch

from vkconv.errors import InvalidModelError

__all__ = ["read_safetensors"]

_LARGEST_HEADER = 32 << 20
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Name -> tensor of a safetensors file; InvalidModelError names what does not fit."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise InvalidModelError(f"the weights '{path}' are no safetensors file")
        header = _header(file.read(length), path)
        # a buffer of its own, because tensors are written to
        numbers = bytearray(file.read())
    tensors, total = {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        where = f"the weights '{path}': '{name}'"
        tensors[name] = _tensor(entry, numbers, where)
        total += tensors[name].nbytes
        # the format has every byte belong to one tensor; without that a small file could fill
        # the memory
        if total > len(numbers):
            raise InvalidModelError(f"{where} shares its place in the file with another")
    return tensors


def _header(text: bytes, path: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InvalidModelError(f"the weights '{path}' are no safetensors file: no JSON header")
    return header


def _tensor(entry: Any, numbers: bytearray, where: str) -> torch.Tensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise InvalidModelError(f"{where} has no dtype, shape and data_offsets")
    kind = _TYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if kind is None:
        raise InvalidModelError(f"{where} has the type {entry['dtype']!r:.20}, which is not read")
    shape, places = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or not _are_counts(places) or len(places) != 2:
        raise InvalidModelError(f"{where}: shape and data_offsets have to be lists of counts")
    begin, end = places
    count = math.prod(shape)
    if not begin <= end <= len(numbers) or end - begin != count * kind.itemsize:
        raise InvalidModelError(f"{where} of shape {tuple(shape)} does not lie in the file")
    if count == 0:
        return torch.zeros(shape, dtype=kind)
    if begin % kind.itemsize:
        aligned = bytearray(numbers[begin:end])
        return torch.frombuffer(aligned, dtype=kind, count=count).reshape(shape)
    return torch.frombuffer(numbers, dtype=kind, count=count, offset=begin).reshape(shape)


def _are_counts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(n) is int and 0 <= n < 1 << 40 for n in value)
    )
