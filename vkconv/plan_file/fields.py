"""The tables of a plan file, read with every type and range checked: files are untrusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkconv.errors import InvalidModelError

#: numbers beyond this are no size, offset or count of anything
LARGEST = 1 << 48

Fail = Callable[[str], InvalidModelError]


class Fields:
    """One JSON object. ``where`` names it in messages; every reader raises InvalidModelError."""

    def __init__(self, value: Any, where: str, fail: Fail) -> None:
        self.where, self.fail = where, fail
        if not isinstance(value, dict):
            raise fail(f"{where} is no object")
        self._value: dict[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def wrong(self, key: str, wanted: str) -> InvalidModelError:
        return self.fail(f"'{key}' of {self.where} is not {wanted}")

    def raw(self, key: str) -> Any:
        if key not in self._value:
            raise self.fail(f"{self.where} lacks '{key}'")
        return self._value[key]

    def text(self, key: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.raw(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integer(self, key: str, low: int = 0, high: int = LARGEST) -> int:
        value = self.raw(key)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"an integer from {low} to {high}")
        return value

    def integers(self, key: str, low: int = 0, high: int = LARGEST) -> tuple[int, ...]:
        value = self.raw(key)
        if not isinstance(value, list) or any(
            type(v) is not int or not low <= v <= high for v in value
        ):
            raise self.wrong(key, f"a list of integers from {low} to {high}")
        return tuple(value)

    def texts(self, key: str) -> list[str]:
        value = self.raw(key)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.wrong(key, "a list of texts")
        return list(value)

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """Pairs of texts, as lists of two."""
        value = self.raw(key)
        fits = isinstance(value, list) and all(
            isinstance(v, list) and len(v) == 2 and all(isinstance(t, str) for t in v)
            for v in value
        )
        if not fits:
            raise self.wrong(key, "a list of pairs of texts")
        return [(a, b) for a, b in value]

    def table(self, key: str) -> dict[str, Any]:
        value = self.raw(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return value

    def fields(self, key: str) -> Fields:
        return Fields(self.raw(key), f"{self.where}, {key}", self.fail)

    def optional_fields(self, key: str) -> Fields | None:
        return None if self.raw(key) is None else self.fields(key)

    def items(self, key: str) -> list[Any]:
        value = self.raw(key)
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return list(value)

    def rows(self, key: str) -> list[Fields]:
        return [
            Fields(value, f"{self.where}, {key} {i}", self.fail)
            for i, value in enumerate(self.items(key))
        ]
