"""docs/systems.md and the tests of systems agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "systems.md"
TEST = re.compile(r"\[`(\w+)`\]\(\.\./(tests/[\w/]+\.py)\)")
OPEN = {"spconv"}


def rows() -> dict[str, set[tuple[str, str]]]:
    """Each system's tests, as (file, function)."""
    found: dict[str, set[tuple[str, str]]] = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| system |", "| ---")):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 3, line
            assert cells[0] not in found, f"'{cells[0]}' has two rows"
            found[cells[0]] = {(file, name) for name, file in TEST.findall(cells[2])}
            assert cells[2] == "open" or found[cells[0]], f"'{cells[0]}' names no test"
    return found


def functions_in(file: Path) -> set[str]:
    body = ast.parse(file.read_text()).body
    return {n.name for n in body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def test_every_row_names_tests_that_there_are() -> None:
    table = rows()
    assert len(table) > 20
    for system, named in table.items():
        for file, name in named:
            assert name in functions_in(ROOT / file), f"'{system}': {file} has no {name}"


def test_every_row_has_a_test_of_the_whole_way() -> None:
    without = {
        system
        for system, named in rows().items()
        if not any(file.startswith("tests/systems/") for file, _ in named)
    }
    assert without == OPEN


def test_every_test_of_a_system_has_a_row() -> None:
    named = set().union(*rows().values())
    here = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in Path(__file__).parent.glob("test_*.py")
        if file.name != Path(__file__).name
        for name in functions_in(file)
    }
    assert len(here) > 25
    assert here <= named, here - named
