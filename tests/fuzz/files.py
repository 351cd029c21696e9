"""Plan files and pictures made hostile: ``plan_mutant(n)`` and ``picture_mutant(n)``."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutators import damaged
from tests.fuzz.mutators.parts import INTEGERS, REALS
from tests.fuzz.seeds import special_models
from tests.plan_file.models import ALL
from vkconv import compile_model
from vkconv.plan_file.container import _HEAD, MAGIC, VERSION

Tables = dict[str, Any]


@cache
def plans() -> tuple[bytes, ...]:
    """Plan files of small models: device and host steps, later stages, loops, indices."""
    special = special_models()
    sources: list[Any] = [make()[0] for make in ALL.values()]
    sources += [special[f"special/{n}/0"] for n in ("indices", "branches", "scan", "control flow")]
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for i, source in enumerate(sources):
            path = Path(folder) / f"{i}.vkplan"
            compile_model(source, str(path))
            made.append(path.read_bytes())
    return tuple(made)


def plan_mutant(number: int) -> bytes:
    """Damaged bytes, or tables changed and signed again as somebody with bad intent would."""
    random = Random(number)
    whole = random.choice(plans())
    if random.random() < 0.15:
        return damaged(whole, random)
    tables = tables_of(whole)
    for _ in range(random.choice((1, 1, 2, 4))):
        change_tables(tables, random)
    return with_tables(whole, tables)


def tables_of(data: bytes) -> Tables:
    size = _HEAD.unpack_from(data)[3]
    result: Tables = json.loads(data[_HEAD.size : _HEAD.size + size])
    return result


def with_tables(data: bytes, tables: Tables) -> bytes:
    """The file with other tables and right checksums; arrays move where the tables need room."""
    first = min((row[2] for row in tables_of(data)["arrays"]), default=len(data))
    moved = 0
    text = b""
    for _ in range(4):  # what the rows say depends on how long they are
        shifted = copy.deepcopy(tables)
        rows = shifted.get("arrays")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, list) and len(row) > 2 and type(row[2]) is int:
                row[2] += moved
        text = json.dumps(shifted, separators=(",", ":")).encode()
        moved = -(-max(0, _HEAD.size + len(text) - first) // 64) * 64
    body = text.ljust(first + moved - _HEAD.size, b"\0") + data[first:]
    digest = hashlib.sha256(text).digest()
    head = _HEAD.pack(MAGIC, VERSION, 0, len(text), _HEAD.size + len(body), digest)
    return head + body


def places(item: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside."""
    keys = list(item) if isinstance(item, dict) else range(len(item))
    for key in keys:
        yield item, key
        if isinstance(item[key], (dict, list)):
            yield from places(item[key])


def change_tables(tables: Tables, random: Random) -> None:
    found = list(places(tables))
    container, key = random.choice(found)
    old = container[key]
    if isinstance(old, (dict, list)) and random.random() < 0.8:
        inner = list(places(old))
        if inner:
            container, key = random.choice(inner)
            old = container[key]
    kind = random.randrange(10)
    if kind == 0:
        del container[key]
    elif kind == 1:
        container[key] = random.choice((None, True, "", [], {}, 0, -1, 1.5, [[]], "x" * 3000))
    elif kind == 2 and isinstance(container, list):
        container.append(copy.deepcopy(old))
    elif kind == 3:
        other, name = random.choice(found)
        container[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else None)
    elif isinstance(old, bool):
        container[key] = not old
    elif isinstance(old, int):
        near = random.random() < 0.5
        container[key] = (
            old + random.choice((-4, -1, 1, 4, 16)) if near else random.choice(INTEGERS)
        )
    elif isinstance(old, float):
        container[key] = random.choice(REALS)
    elif isinstance(old, str):
        words = [c[k] for c, k in found if isinstance(c[k], str)]
        container[key] = random.choice([*words, "", "\x00", old + "x"])


@cache
def pictures() -> tuple[bytes, ...]:
    """Pictures of every format and mode that cameras and tools write."""
    random = np.random.default_rng(0)
    colours = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (24, 32), dtype=np.uint16))
    wanted: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((colours, kind, {}) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")),
        *((colours.convert(mode), "TIFF", {}) for mode in ("CMYK", "L", "1", "LAB", "F", "I")),
        *((colours.convert(mode), "PNG", {}) for mode in ("RGBA", "LA", "P", "1", "L")),
        (colours.convert("CMYK"), "JPEG", {}),
        (colours, "JPEG", {"progressive": True}),
        (colours, "TIFF", {"compression": "tiff_lzw"}),
        (colours, "TIFF", {"compression": "tiff_deflate"}),
        (deep, "PNG", {}),
        (colours, "GIF", {"save_all": True, "append_images": [colours.rotate(90)] * 3}),
        (colours, "WEBP", {"save_all": True, "append_images": [colours.rotate(90)] * 3}),
        (colours, "ICO", {"sizes": [(16, 16)]}),
        (Image.new("1", (20_000, 20_000)), "PNG", {}),
        (Image.new("L", (1, 20_000)), "PNG", {}),
    ]
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted.append((colours, "JPEG", {"exif": exif}))
    made = []
    for image, kind, options in wanted:
        file = io.BytesIO()
        image.save(file, kind, **options)
        made.append(file.getvalue())
    return tuple(made)


def picture_mutant(number: int) -> bytes:
    random = Random(number)
    data = random.choice(pictures())
    return data if random.random() < 0.03 else damaged(data, random)
