"""Class names: from a model's metadata, from a file, or the names of COCO.

Metadata and files are untrusted. Whatever comes out of here is printable, short, and on one line,
so that it can go to a terminal and onto a picture as it is.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping, Sequence

from vkconv.errors import InvalidInputError, InvalidModelError

__all__ = ["COCO_NAMES", "class_name", "default_class_names", "metadata_class_names", "read_labels"]

_LONGEST_NAME = 60
_LARGEST_FILE = 4 << 20

# What Ultralytics writes: a Python literal, {0: 'person', 1: "driver's seat"} or ['person', ...].
# Matched before ast.literal_eval sees it, because deep nesting can exhaust the parser's C stack.
_STRING = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
_NAMES_DICT = re.compile(rf"\s*\{{\s*(?:\d{{1,9}}\s*:\s*{_STRING}\s*(?:,\s*|(?=\}})))*\}}\s*")
_NAMES_LIST = re.compile(rf"\s*\[\s*(?:{_STRING}\s*(?:,\s*|(?=\])))*\]\s*")

# The 80 detection classes of COCO (Lin et al., 2014), in the order detectors are trained with.
COCO_NAMES: tuple[str, ...] = tuple(
    """person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light;
    fire hydrant; stop sign; parking meter; bench; bird; cat; dog; horse; sheep; cow; elephant;
    bear; zebra; giraffe; backpack; umbrella; handbag; tie; suitcase; frisbee; skis; snowboard;
    sports ball; kite; baseball bat; baseball glove; skateboard; surfboard; tennis racket; bottle;
    wine glass; cup; fork; knife; spoon; bowl; banana; apple; sandwich; orange; broccoli; carrot;
    hot dog; pizza; donut; cake; chair; couch; potted plant; bed; dining table; toilet; tv; laptop;
    mouse; remote; keyboard; cell phone; microwave; oven; toaster; sink; refrigerator; book; clock;
    vase; scissors; teddy bear; hair drier; toothbrush""".replace("\n    ", " ").split("; ")
)


def default_class_names(count: int) -> tuple[str, ...]:
    """Names for a model that brings none: COCO's for 80 classes, else "class 0", "class 1"..."""
    if count == len(COCO_NAMES):
        return COCO_NAMES
    return tuple(class_name((), index) for index in range(count))


def class_name(names: Sequence[str], class_id: int) -> str:
    """The name of a class; one that has none is named by its number."""
    return names[class_id] if class_id < len(names) else f"class {class_id}"


def metadata_class_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names a model's metadata holds, or None when it holds none.

    Reads ``vkconv.classes`` (a JSON list of strings), else Ultralytics' ``names`` (a Python literal
    of a dict from class index to name, or of a list). Raises InvalidModelError when the entry is
    there but malformed.
    """
    if "vkconv.classes" in metadata:
        return _from_json(metadata["vkconv.classes"])
    if "names" in metadata:
        return _from_literal(metadata["names"])
    return None


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names from a text file in UTF-8, one a line, in class order; trailing blank lines go.

    Raises InvalidInputError when the file is missing, no text, or empty.
    """
    name = os.fspath(path)
    if os.path.exists(name) and not os.path.isfile(name):
        raise InvalidInputError(f"the labels '{name}' are not a file; give a text file")
    try:
        with open(name, encoding="utf-8-sig") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the labels file '{name}': {error.strerror or error}"
        ) from error
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"the labels file '{name}' is not UTF-8 text; give one class name per line"
        ) from None
    if len(text) > _LARGEST_FILE:
        raise InvalidInputError(f"the labels file '{name}' is too large for a list of class names")
    lines = text.rstrip().splitlines()
    if not lines:
        raise InvalidInputError(f"the labels file '{name}' is empty; give one class name per line")
    return _clean(lines)


def _from_json(text: str) -> tuple[str, ...]:
    expected = "vkconv.classes in the model's metadata must be a JSON list of class names"
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidModelError(expected) from None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InvalidModelError(expected)
    return _clean(names)


def _from_literal(text: str) -> tuple[str, ...]:
    expected = (
        "'names' in the model's metadata must be a literal such as {0: 'person', 1: 'car'}; "
        "export the model again, or set vkconv.classes to a JSON list"
    )
    is_dict = _NAMES_DICT.fullmatch(text) is not None
    if len(text) > _LARGEST_FILE or not (is_dict or _NAMES_LIST.fullmatch(text)):
        raise InvalidModelError(expected)
    try:
        literal = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise InvalidModelError(expected) from None
    # An empty {} is no list of names, and a gap in the indices would shift every later name.
    if is_dict:
        if set(literal) != set(range(len(literal))):
            raise InvalidModelError(expected)
        literal = [literal[index] for index in range(len(literal))]
    if not literal:
        raise InvalidModelError(expected)
    return _clean(literal)


def _clean(names: Sequence[str]) -> tuple[str, ...]:
    """Printable, one line, at most 60 characters, never empty."""
    cleaned = []
    for index, name in enumerate(names):
        text = " ".join("".join(c if c.isprintable() else " " for c in name).split())
        if len(text) > _LONGEST_NAME:
            text = text[: _LONGEST_NAME - 1] + "…"
        cleaned.append(text or class_name((), index))
    return tuple(cleaned)
