"""docs/operators.md says what is so."""

from __future__ import annotations

import json

import generate_operator_table as generator
from vkconv.ops.registry import REGISTRY

HOW = "run: python scripts/generate_operator_table.py"


def test_the_table_lists_the_registry() -> None:
    lines = generator.TABLE.read_text().splitlines()
    listed = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert listed[1:] == sorted(name for domain, name in REGISTRY if not domain), HOW


def test_the_table_is_what_the_script_writes() -> None:
    recorded = json.loads(generator.RECORD.read_text())
    assert generator.TABLE.read_text() == generator.table(recorded), HOW


def test_the_record_counts_enough() -> None:
    recorded = json.loads(generator.RECORD.read_text())
    assert recorded["passed"] >= 0.99 * recorded["in_scope"]
