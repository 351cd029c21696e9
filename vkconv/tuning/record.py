"""The tuning record: a JSON file with one line for each layer shape, made to be read and shared.

    {"format": "vkconv tuning record", "version": 1, "devices": [
      {"device": ..., "driver": ..., "vkconv": ..., "features": ..., "layers": {
        "conv 1x1g 64>64 ...": {"choice": ..., "ms": 0.51, "untuned": ..., "untuned_ms": 0.62}}}]}

A layer names the shape (``Problem.key``), the fastest kernel with its tile, and the kernel that the
rules choose; ``ms`` are milliseconds of each. What is found for one device, driver, version of
vkconv and set of features says nothing about another. A file that is missing, damaged or of another
version holds nothing; so do the parts of it that are not as they should be.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.errors import InvalidInputError
from vkconv.files import cache_folder, write_bytes

FORMAT = "vkconv tuning record"
VERSION = 1
FILE_NAME = "tuning.json"
#: names a record to be used instead of the one in the cache folder
VARIABLE = "VKCONV_TUNING"
#: a larger file is no record: a layer takes some 200 bytes
MAX_BYTES = 16 << 20


@dataclass(frozen=True, order=True)
class Target:
    """What a record's findings hold for. ``features``: those that change how a kernel reads."""

    device: str
    driver: str
    vkconv: str
    features: str


@dataclass(frozen=True)
class Timing:
    """The choice that was fastest, the one made without tuning, and the milliseconds of each."""

    choice: str
    ms: float
    untuned: str
    untuned_ms: float


#: by ``Problem.key``
Layers = dict[str, Timing]
Record = dict[Target, Layers]


def target_of(info: DeviceInfo, caps: DeviceCaps) -> Target:
    """The heading under which findings on a device are kept."""
    import vkconv

    features = {
        f"shuffle({caps.subgroup_size})": caps.subgroup_shuffle,
        "storage_texel": caps.storage_texel,
        "uniform_texel": caps.uniform_texel,
        "unrolling": caps.unrolls_loops,
        "wide_tiles": caps.wide_tiles,
    }
    there = " ".join(name for name, has in features.items() if has)
    return Target(info.name, info.driver, vkconv.__version__, there)


def is_enabled() -> bool:
    """Whether VKCONV_DISABLE leaves records on."""
    names = os.environ.get("VKCONV_DISABLE", "").split(",")
    return "tuning" not in (name.strip() for name in names)


def record_path(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The record to use: the one given, VKCONV_TUNING's, or that of the cache folder; None where
    there is no place for it or records are switched off."""
    if given is not None:
        return Path(given)
    if not is_enabled():
        return None
    named = os.environ.get(VARIABLE, "").strip()
    try:
        return Path(named) if named else cache_folder() / FILE_NAME
    except (RuntimeError, OSError):  # no home folder
        return None


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """What a record holds, an empty one where it is of another version; None where the file is
    missing or no record."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return None
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    record: Record = {}
    rows = found.get("devices")
    if found.get("version") == VERSION and isinstance(rows, list):
        for row in rows:
            target, layers = _target(row), _layers(row)
            if target is not None and layers:
                record.setdefault(target, {}).update(layers)
    return record


def save_record(path: str | os.PathLike[str], target: Target, layers: Mapping[str, Timing]) -> None:
    """Adds findings to the record at ``path``, whole or not at all; what else it holds stays.

    A damaged record is written anew. Raises InvalidInputError when the file cannot be written.
    """
    record = read_record(path) or {}
    record.setdefault(target, {}).update(layers)
    write_bytes(str(path), encode_record(record).encode(), "the tuning record")


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raises InvalidInputError where ``path`` is a file that is no record, so that none is lost."""
    if os.path.isfile(path) and os.path.getsize(path) and read_record(path) is None:
        raise InvalidInputError(
            f"'{os.fspath(path)}' is there and no tuning record; name another file, or delete it"
        )


def encode_record(record: Record) -> str:
    """The text of the file: sorted, one line for each layer."""
    devices = []
    for target in sorted(record):
        about = [f"  {json.dumps(k)}: {json.dumps(v)}," for k, v in asdict(target).items()]
        layers = [f"    {json.dumps(k)}: {_line(t)}" for k, t in sorted(record[target].items())]
        lines = ["{", *about, '  "layers": {', ",\n".join(layers), "  }", "}"]
        devices.append("\n".join(lines))
    listed = ",\n".join(devices)
    head = f'"format": {json.dumps(FORMAT)},\n"version": {VERSION},\n"devices": ['
    return f"{{\n{head}\n{listed}\n]\n}}\n"


def _line(timing: Timing) -> str:
    fields = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(timing).items()}
    return json.dumps(fields)


def _target(row: Any) -> Target | None:
    if not isinstance(row, dict):
        return None
    given = [row.get(name) for name in ("device", "driver", "vkconv", "features")]
    if not all(isinstance(text, str) for text in given):
        return None
    return Target(*(str(text) for text in given))


def _layers(row: Any) -> Layers:
    listed = row.get("layers") if isinstance(row, dict) else None
    if not isinstance(listed, dict):
        return {}
    found = {key: _timing(value) for key, value in listed.items()}
    return {key: timing for key, timing in found.items() if timing is not None}


def _timing(value: Any) -> Timing | None:
    if not isinstance(value, dict):
        return None
    choice, untuned = value.get("choice"), value.get("untuned")
    ms, untuned_ms = _time(value.get("ms")), _time(value.get("untuned_ms"))
    if not isinstance(choice, str) or not isinstance(untuned, str):
        return None
    return None if ms is None or untuned_ms is None else Timing(choice, ms, untuned, untuned_ms)


def _time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        time = float(value)
    except OverflowError:
        return None
    return time if math.isfinite(time) and time >= 0 else None
