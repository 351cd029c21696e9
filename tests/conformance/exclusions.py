"""The tests that are not passed, and why: ``exclusions.txt``, read."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

FILE = Path(__file__).with_name("exclusions.txt")


@dataclass(frozen=True)
class Exclusion:
    """Tests whose name (kind/name) matches ``pattern``."""

    pattern: str
    reason: str

    def covers(self, test: str) -> bool:
        return fnmatchcase(test, self.pattern)


def exclusions() -> list[Exclusion]:
    """One a line: a pattern of names, two spaces, the reason. A line that starts with # is read by
    people only."""
    found = []
    for line in FILE.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, _, reason = line.partition("  ")
            found.append(Exclusion(pattern.strip(), reason.strip()))
    return found
