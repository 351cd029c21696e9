"""Small yaml files of plain data, which are untrusted."""

from __future__ import annotations

import os
from typing import Any

import yaml

from vkconv.errors import InvalidInputError, InvalidModelError

__all__ = ["read_yaml"]

_LARGEST_FILE = 256 << 10
_DEEPEST = 16


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """The contents of a yaml file of plain data: no tags, no aliases, no depths."""
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8-sig") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInputError(f"cannot read the {what} '{name}': {reason}") from error
    except UnicodeDecodeError:
        raise InvalidModelError(
            f"the {what} '{name}' is not UTF-8 text; give a yaml file"
        ) from None
    if len(text) > _LARGEST_FILE:
        raise InvalidModelError(f"the {what} '{name}' is too large for a yaml file of this kind")
    try:
        _refuse_what_explodes(text, f"the {what} '{name}'")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidModelError(f"the {what} '{name}' is not valid yaml: {reason}") from None


def _refuse_what_explodes(text: str, where: str) -> None:
    """Aliases, of which a few lines stand for more data than fits anywhere, and deep nesting, over
    which the parser takes minutes."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InvalidModelError(f"{where} uses yaml aliases; write the values out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise InvalidModelError(f"{where} is nested more than {_DEEPEST} levels deep")
