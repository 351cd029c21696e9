"""What ``vkconv verify`` and ``vkconv-run --verify`` print: a table for people, or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.cli.terminal import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

    from vkconv.verification import NodeCheck, Verification

__all__ = ["print_verification", "record"]


def print_verification(console: Console, model: str, found: Verification) -> None:
    """The table, node by node, and the verdict."""
    from rich.text import Text

    from vkconv.cli.report import describe_device, print_pairs, print_table

    fed = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in found.feeds.items())
    pairs = [
        ("device", describe_device(found.device)),
        ("model", printable(model)),
        ("inputs", one_line(f"{fed or 'none'} ({found.described})")),
    ]
    if found.tuned:
        count = len(found.tuned)
        about = f"{count} node{'s' * (count != 1)} by a kernel that the tuning record chose"
        pairs.append(("tuned", about))
    print_pairs(console, pairs)
    rows = [_row(check) for check in found.checks]
    print_table(
        console,
        ["node", "operator", "kernel", "NMSE", "allowed", "worst element", ""],
        rows,
        right=("NMSE", "allowed"),
    )
    ends = [
        [f"output '{one_line(d.value)}'", what, _number(d.nmse), _number(d.allowed.nmse),
         Text("ok" if d.holds else "differs", "green" if d.holds else "red")]
        for what, differences in (
            ("plain run, same bits", found.replay),
            ("end to end", found.end_to_end),
        )
        for d in differences
    ]  # fmt: skip
    print_table(console, ["", "compared", "NMSE", "allowed", ""], ends, right=("NMSE", "allowed"))
    console.print()
    notes = [("not compared", one_line(note)) for note in found.notes]
    print_pairs(console, [*notes, ("result", one_line(found.verdict))])


def _row(check: NodeCheck) -> list[Any]:
    from rich.text import Text

    name = check.node + (f" x{check.runs}" if check.runs > 1 else "")
    if check.fused:
        more = f" and {len(check.fused) - 1} more" if len(check.fused) > 1 else ""
        name += f" + {check.fused[0]}{more}"
    kernels = ", ".join(check.kernels) or check.where
    kernels += " (tuned)" if check.tuned else ""
    worst = check.worst
    if worst is None:
        return [*map(one_line, (name, check.op_type, kernels)), "", "", check.skipped, Text("-")]
    verdict = Text("ok", "green") if check.holds else Text("differs", "bold red")
    shown = worst.worst if worst.nmse or not worst.holds else "equal"
    numbers = (_number(worst.nmse), _number(worst.allowed.nmse))
    return [*map(one_line, (name, check.op_type, kernels)), *numbers, one_line(shown), verdict]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def record(model: str, found: Verification) -> dict[str, Any]:
    """The result for programs."""
    first = found.first
    return {
        "model": model,
        "device": {
            "name": found.device.name,
            "kind": found.device.kind,
            "driver": found.device.driver,
        },
        "holds": found.holds,
        "verdict": found.verdict,
        "first": None if first is None else first.node,
        "nodes": [_node_record(check) for check in found.checks],
        "outputs": [
            {"name": d.value, "compared": what, "nmse": _finite(d.nmse), "holds": d.holds}
            for what, rows in (("replay", found.replay), ("end_to_end", found.end_to_end))
            for d in rows
        ],
        "notes": list(found.notes),
    }


def _node_record(check: NodeCheck) -> dict[str, Any]:
    worst = check.worst
    made: dict[str, Any] = {
        "node": check.node,
        "op_type": check.op_type,
        "where": check.where,
        "kernels": list(check.kernels),
        "tuned": list(check.tuned.values()),
        "fused": list(check.fused),
        "runs": check.runs,
        "holds": check.holds if worst is not None else None,
        "skipped": check.skipped or None,
    }
    if worst is not None:
        made |= {
            "value": worst.value,
            "nmse": _finite(worst.nmse),
            "allowed": worst.allowed.nmse,
            "index": list(worst.index),
            "got": _finite(worst.got),
            "wanted": _finite(worst.wanted),
            "wrong": worst.wrong,
            "size": worst.size,
        }
    return made


def _finite(value: float | str) -> float | str:
    """JSON has no infinities and NaNs: those are said in words."""
    return value if isinstance(value, str) or np.isfinite(value) else str(value)
