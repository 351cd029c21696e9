"""Which variants a shader has: its ``#pragma vkconv`` lines, their product, and what it includes.

    #pragma vkconv variants(access = storage_texel, uniform_texel, ssbo; dtype = float, int)
    #pragma vkconv exclude(access = ssbo, dtype = int)

The first declares axes and the values of each; a variant is one value per axis and compiles with
the defines ``<AXIS>_<VALUE>`` = 1 in upper case. ``exclude`` drops the combinations that match all
its pairs.
A shader without a pragma has the one variant ``""``.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from vkconv.errors import BuildError

_PRAGMA = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+vkconv\b(?P<rest>.*)$", re.MULTILINE)
_CALL = re.compile(r"\s*(?P<verb>\w+)\s*\((?P<body>[^()]*)\)\s*$")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"(?P<name>[^"]+)"', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class ShaderError(BuildError):
    """A shader, or the means to compile it, is at fault. Each line of the message reads alone."""


@dataclass(frozen=True)
class Variant:
    """One value per axis, in the order the axes were declared."""

    choice: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """``axis=value`` pairs sorted by axis: the name by which ``vkconv.shaders`` asks for it."""
        return ",".join(f"{axis}={value}" for axis, value in sorted(self.choice))

    @property
    def defines(self) -> list[str]:
        return [f"-D{axis}_{value}=1".upper() for axis, value in self.choice]


@dataclass(frozen=True)
class Source:
    """A shader's text with everything it includes, and the variants it declares."""

    path: Path
    axes: dict[str, tuple[str, ...]]
    variants: tuple[Variant, ...]
    #: the text of the shader and of every file it includes, by name, in order of first inclusion
    texts: dict[str, str]

    @property
    def kernel(self) -> str:
        return self.path.stem


def read_source(path: Path, include: Path) -> Source:
    """Read ``path`` with its includes and pragmas; ShaderError names file and line."""
    if not path.stem.isidentifier():
        raise ShaderError(f"{path}: a kernel's name must be a Python identifier")
    texts: dict[str, str] = {}
    _collect(path, path.name, include, texts)
    for name, text in itertools.islice(texts.items(), 1, None):
        if match := _PRAGMA.search(_without_comments(text)):
            raise ShaderError(f"{name}:{_line(text, match)}: '#pragma vkconv' belongs in the .comp")
    axes, variants = _declared_variants(path, texts[path.name])
    return Source(path, axes, variants, texts)


def _collect(path: Path, name: str, include: Path, texts: dict[str, str]) -> None:
    try:
        texts[name] = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ShaderError(f"{path}: this is no GLSL text in UTF-8") from None
    except OSError as error:
        raise ShaderError(f"{path}: cannot be read: {error.strerror}") from None
    for match in _INCLUDE.finditer(_without_comments(texts[name])):
        wanted = match["name"]
        # the compilers' order for "...": beside the including file, then the include path
        found = [p for p in (path.parent / wanted, include / wanted) if p.is_file()]
        if not found:
            line = _line(texts[name], match)
            raise ShaderError(f"{path}:{line}: cannot find the include file '{wanted}'")
        if wanted not in texts:
            _collect(found[0], wanted, include, texts)


def _without_comments(text: str) -> str:
    """The text with comments and line continuations blanked, every line keeping its number."""

    def blank(match: re.Match[str]) -> str:
        return " " + "\n" * match[0].count("\n")

    text = _COMMENT.sub(blank, text)
    # a continued line swallows its successors; as many empty lines follow it
    return re.sub(
        r"(?:[^\n]*\\\n)+[^\n]*",
        lambda m: m[0].replace("\\\n", " ") + "\n" * m[0].count("\\\n"),
        text,
    )


def _line(text: str, match: re.Match[str]) -> int:
    return _without_comments(text).count("\n", 0, match.start()) + 1


def _declared_variants(
    path: Path, text: str
) -> tuple[dict[str, tuple[str, ...]], tuple[Variant, ...]]:
    axes: dict[str, tuple[str, ...]] = {}
    exclusions: list[tuple[str, dict[str, str]]] = []
    for match in _PRAGMA.finditer(_without_comments(text)):
        place = f"{path}:{_line(text, match)}"
        call = _CALL.match(match["rest"])
        if call is None or call["verb"] not in ("variants", "exclude"):
            raise ShaderError(
                f"{place}: malformed '#pragma vkconv'; write variants(axis = value, value; axis = "
                "...) or exclude(axis = value, axis = value)"
            )
        if call["verb"] == "exclude":
            exclusions.append((place, _parse_exclusion(place, call["body"])))
        elif axes:
            raise ShaderError(f"{place}: a shader has one 'variants' pragma; name all axes in it")
        else:
            axes = _parse_axes(place, call["body"])
    variants = [
        Variant(tuple(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
    for place, excluded in exclusions:
        kept = [v for v in variants if not excluded.items() <= dict(v.choice).items()]
        if len(kept) == len(variants):
            raise ShaderError(f"{place}: 'exclude' matches no variant")
        variants = kept
    if not variants:
        raise ShaderError(f"{path}: every variant is excluded")
    return axes, tuple(variants)


def _parse_axes(place: str, body: str) -> dict[str, tuple[str, ...]]:
    axes: dict[str, tuple[str, ...]] = {}
    for part in body.split(";"):
        axis, equals, listed = (piece.strip() for piece in part.partition("="))
        values = tuple(value.strip() for value in listed.split(","))
        if not equals:
            raise ShaderError(
                f"{place}: malformed axis '{part.strip()}'; write 'axis = value, value'"
            )
        for name in (axis, *values):
            if not _NAME.match(name):
                raise ShaderError(f"{place}: '{name}' is no name (lower-case letters, digits, _)")
        if axis in axes or len(set(values)) != len(values):
            raise ShaderError(f"{place}: axis '{axis}' or one of its values is named twice")
        axes[axis] = values
    return axes


def _parse_exclusion(place: str, body: str) -> dict[str, str]:
    excluded: dict[str, str] = {}
    for part in body.split(","):
        axis, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not _NAME.match(axis) or not _NAME.match(value) or axis in excluded:
            raise ShaderError(f"{place}: malformed pair '{part.strip()}'; write 'axis = value'")
        excluded[axis] = value
    return excluded
