"""The yaml that describes a YOLOv7: read, checked and resolved, without building anything.

A layer is a row ``[from, number, name, arguments]`` of ``backbone`` or ``head``::

    [-1, 1, Conv, [128, 3, 2]]          the layer before; 128 channels, 3x3, stride 2
    [[-1, 24], 1, Concat, [1]]          the layer before and layer 24, joined by channels

``from`` counts layers from 0, a negative number backwards from the row. Arguments may be words of
Python that the training code evaluates; here a table resolves them, and nothing is evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vkconv.converters.checkpoints.yaml_files import read_yaml
from vkconv.errors import InvalidModelError

__all__ = ["Anchors", "Cfg", "Row", "parse_cfg", "read_cfg"]

_MOST_ROWS = 2000
_MOST_CLASSES = 100_000
_MOST_LEVELS = 8

#: width and height in pixels of each anchor of each level
Anchors = tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: where its inputs come from (layer indices; -1 is the picture), and what it is."""

    index: int
    sources: tuple[int, ...]
    repeats: int
    name: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"layer {self.index} ({self.name})"


@dataclass(frozen=True, slots=True)
class Cfg:
    """A network as its yaml describes it; ``name`` is the file's, for messages.

    width_multiple: what every number of channels is multiplied with, then rounded up to 8.
    """

    name: str
    classes: int
    width_multiple: float
    anchors: Anchors
    rows: tuple[Row, ...]


def read_cfg(path: str | os.PathLike[str]) -> Cfg:
    """The cfg in a yaml file; InvalidInputError or InvalidModelError in one line."""
    return parse_cfg(read_yaml(path, "cfg"), os.fspath(path))


def parse_cfg(document: Any, name: str) -> Cfg:
    """What ``read_yaml`` gave, as a Cfg; InvalidModelError names the key or the layer."""
    if not isinstance(document, dict):
        raise InvalidModelError(f"the cfg '{name}' is no yaml mapping with 'backbone' and 'head'")
    for key in ("nc", "anchors", "backbone", "head"):
        if key not in document:
            raise InvalidModelError(
                f"the cfg '{name}' has no '{key}'; give the yaml the network was trained with"
            )
    classes = document["nc"]
    if not _is_integer(classes) or not 1 <= classes <= _MOST_CLASSES:
        raise InvalidModelError(
            f"the cfg '{name}': nc has to be a number of classes, not {classes}"
        )
    depth = _multiple(document, "depth_multiple", name)
    anchors = _anchors(document["anchors"], f"the cfg '{name}': anchors")
    return Cfg(
        name,
        classes,
        _multiple(document, "width_multiple", name),
        anchors,
        tuple(_rows(document, depth, name)),
    )


def _multiple(document: dict[str, Any], key: str, name: str) -> float:
    value = document.get(key, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 16:
        raise InvalidModelError(f"the cfg '{name}': {key} has to be a factor such as 1.0")
    return float(value)


def _anchors(value: Any, what: str) -> Anchors:
    """From ``[[12, 16, 19, 36, 40, 28], ...]``, one list of widths and heights a level."""
    expected = f"{what} has to be one list of widths and heights in pixels for each level"
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_LEVELS:
        raise InvalidModelError(expected)
    levels = []
    for level in value:
        if not isinstance(level, list) or not 2 <= len(level) <= 64 or len(level) % 2:
            raise InvalidModelError(expected)
        if not all(_is_number(side) and 0 < side < 1e5 for side in level):
            raise InvalidModelError(expected)
        sides = [float(side) for side in level]
        levels.append(tuple(zip(sides[::2], sides[1::2], strict=True)))
    if len({len(level) for level in levels}) != 1:
        raise InvalidModelError(f"{expected}, each of as many anchors")
    return tuple(levels)


def _rows(document: dict[str, Any], depth: float, name: str) -> Iterator[Row]:
    parts = [document["backbone"], document["head"]]
    if not all(isinstance(part, list) for part in parts):
        raise InvalidModelError(f"the cfg '{name}': backbone and head have to be lists of layers")
    rows = parts[0] + parts[1]
    if not 1 <= len(rows) <= _MOST_ROWS:
        raise InvalidModelError(f"the cfg '{name}' has {len(rows)} layers; 1 to {_MOST_ROWS} fit")
    for index, row in enumerate(rows):
        where = f"layer {index} of the cfg '{name}'"
        if not isinstance(row, list) or len(row) != 4:
            raise InvalidModelError(f"{where} is not of the form [from, number, name, arguments]")
        sources, repeats, kind, arguments = row
        if not isinstance(kind, str) or not isinstance(arguments, list) or len(arguments) > 16:
            raise InvalidModelError(f"{where} is not of the form [from, number, name, arguments]")
        if not _is_integer(repeats) or not 1 <= repeats <= 100:
            raise InvalidModelError(f"{where} ({kind}): the number of repeats has to be 1 to 100")
        # as in training: depth_multiple thins out what is repeated, and nothing else
        repeats = max(round(repeats * depth), 1) if repeats > 1 else 1
        yield Row(
            index,
            _sources(sources, index, f"{where} ({kind})"),
            repeats,
            kind,
            tuple(_resolved(value) for value in arguments),
        )


def _sources(value: Any, index: int, where: str) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    if not listed or len(listed) > 64 or not all(_is_integer(source) for source in listed):
        raise InvalidModelError(f"{where}: 'from' has to be a layer's index or a list of them")
    found = []
    for source in listed:
        absolute = index + source if source < 0 else source
        # the first layer's -1 is the picture
        if not (0 <= absolute < index or (index == 0 and source == -1)):
            before = f"only layers 0 to {index - 1} come" if index else "only the picture comes"
            raise InvalidModelError(
                f"{where} takes its input from {source}, but {before} before it"
            )
        found.append(absolute)
    return tuple(found)


#: words of Python that occur as arguments; ``nc`` and ``anchors`` are known to the layers
_WORDS = {"None": None, "True": True, "False": False}


def _resolved(value: Any) -> Any:
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
