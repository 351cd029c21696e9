"""Class names from a text file, or from the yaml that describes a data set."""

from __future__ import annotations

import os

from vkconv.converters.checkpoints.yaml_files import read_yaml
from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.vision import read_labels

__all__ = ["read_names"]

_MOST = 100_000


def read_names(path: str | os.PathLike[str], count: int) -> tuple[str, ...]:
    """The names of ``count`` classes, in class order.

    A file that ends in .yaml or .yml has them under ``names``, as a list or by index; any other has
    one a line. Raises InvalidInputError when there are more or fewer, InvalidModelError for a yaml
    without names.
    """
    name = os.fspath(path)
    is_yaml = name.lower().endswith((".yaml", ".yml"))
    names = _from_yaml(name) if is_yaml else read_labels(name)
    if len(names) != count:
        raise InvalidInputError(
            f"'{name}' has {len(names)} names, but the network tells {count} classes apart; give "
            "one for each, in class order"
        )
    return names


def _from_yaml(name: str) -> tuple[str, ...]:
    document = read_yaml(name, "names")
    expected = f"the names '{name}' are no yaml with a list 'names'"
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise InvalidModelError(f"{expected}, or with one for each index from 0")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not 1 <= len(names) <= _MOST:
        raise InvalidModelError(expected)
    if not all(isinstance(text, str | int | float) for text in names):
        raise InvalidModelError(f"{expected} of texts")
    return tuple(str(text) for text in names)
