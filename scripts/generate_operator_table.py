#!/usr/bin/env python3
"""Writes docs/operators.md from the registered operators and the recorded conformance results.

    python scripts/generate_operator_table.py          the table, from what is recorded
    python scripts/generate_operator_table.py --run    run ONNX's tests first, and record them

The record is docs/operators.json: for each operator the tests that have it, and where its nodes
ran. Tests hold that the table is what this script writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "operators.md"
RECORD = ROOT / "docs" / "operators.json"

_HEAD = """\
# Operators

Written by `scripts/generate_operator_table.py`; do not edit.

{summary}

- **opsets**: the versions of the operator, all known; an opset means the newest not above it.
- **types on the GPU**: element types its kernels take. Others run on the host by numpy, which a
  warning and `session.placement` say, and `strict=True` refuses.
- **layouts**: `c4` packs four channels of a feature map into one element, `linear` is row-major.
- **ran**: where its nodes ran in ONNX's tests. `folded`: computed when the model was planned;
  `fused`: part of another node's kernel; `deferred` nodes are planned in the run.
- **tests**: passed, of those of ONNX's own tests that contain the operator and are in scope
  (`tests/conformance/scope.py`); what is not passed is in `tests/conformance/exclusions.txt`.

Operators that are not listed here, but that the standard defines by others, are expanded when a
model is read: {expanded}.

| operator | opsets | types on the GPU | layouts | ran | tests |
|---|---|---|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--run", action="store_true", help="run ONNX's tests first")
    if parser.parse_args().run:
        RECORD.write_text(as_text(record()))
    TABLE.write_text(table(json.loads(RECORD.read_text())))
    return 0


_Formatter = argparse.RawDescriptionHelpFormatter


def record() -> dict[str, Any]:
    """Runs all tests on the default device; the results by operator."""
    sys.path.insert(0, str(ROOT))
    import onnx

    from tests.conformance.collection import all_tests
    from tests.conformance.runner import run
    from vkconv.device import open_device

    device = open_device()
    name = device.info.name
    device.close()
    outcomes = [run(test) for test in all_tests()]
    operators: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        for op_type, places in outcome.places.items():
            ran = operators.setdefault(op_type, _nothing())["ran"]
            ran += [p for p in places if p not in ran]
        for op_type in outcome.operators if outcome.in_scope else []:
            entry = operators.setdefault(op_type, _nothing())
            entry["tests"] += 1
            entry["passed"] += outcome.error is None
    counted = [o for o in outcomes if o.in_scope]
    for entry in operators.values():
        entry["ran"].sort()
    return {
        "device": name,
        "onnx": onnx.__version__,
        "in_scope": len(counted),
        "passed": sum(o.error is None for o in counted),
        "all": len(outcomes),
        "operators": operators,
    }


def as_text(recorded: dict[str, Any]) -> str:
    """JSON with a line for each operator, so that a change of one is one in the file."""
    rows = [
        f"  {json.dumps(name)}: {json.dumps(entry, sort_keys=True)}"
        for name, entry in sorted(recorded["operators"].items())
    ]
    rest = json.dumps({**recorded, "operators": None}, indent=1, sort_keys=True)
    return rest.replace("null", "{\n" + ",\n".join(rows) + "\n }") + "\n"


def _nothing() -> dict[str, Any]:
    return {"ran": [], "tests": 0, "passed": 0}


def table(recorded: dict[str, Any]) -> str:
    """The page, for these results."""
    from vkconv.ops.registry import REGISTRY

    share = 100 * recorded["passed"] / recorded["in_scope"]
    summary = (
        f"Of the {recorded['in_scope']} tests of onnx {recorded['onnx']} that are in scope (of "
        f"{recorded['all']} in all), {recorded['passed']} pass on {recorded['device']}: "
        f"{share:.2f} %."
    )
    rows = [
        _row(op_type, REGISTRY["", op_type], recorded["operators"].get(op_type, _nothing()))
        for op_type in sorted(name for domain, name in REGISTRY if domain == "")
    ]
    return _HEAD.format(summary=summary, expanded=", ".join(_expanded())) + "".join(rows)


def _expanded() -> list[str]:
    """Operators with a definition that are not registered."""
    import onnx.defs

    from vkconv.ops.registry import is_registered

    return sorted(
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if schema.domain == ""
        and (schema.has_function or schema.has_context_dependent_function)
        and not is_registered("", schema.name)
    )


def _row(op_type: str, cls: Any, entry: dict[str, Any]) -> str:
    from vkconv.ops.operator import Operator, has_method

    on_gpu = has_method(cls, "lower") or has_method(cls, "view")
    types = ", ".join(sorted(cls.device_dtypes, key=_type_order)) if on_gpu else ""
    further = sorted(cls.result_dtypes - cls.device_dtypes, key=_type_order)
    if on_gpu and further:
        types += f" (results: {', '.join(further)})"
    chosen = cls.layout is not Operator.layout
    layouts = ("c4, linear" if chosen else "linear") if on_gpu else ""
    tests = f"{entry['passed']} / {entry['tests']}" if entry["tests"] else ""
    cells = (op_type, _versions(cls.since), types, layouts, ", ".join(entry["ran"]), tests)
    return "| " + " | ".join(cells) + " |\n"


def _versions(since: tuple[int, ...]) -> str:
    return ", ".join(map(str, since))


def _type_order(name: str) -> tuple[bool, str, int]:
    """float32 first, then by kind and width."""
    kind = name.rstrip("0123456789")
    return name != "float32", kind, int(name[len(kind) :] or 0)


if __name__ == "__main__":
    sys.exit(main())
