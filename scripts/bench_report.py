"""What ``scripts/bench`` prints: the times of all blocks as one table, and what they depend on."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
#: its outputs are what the others' are compared with
ORACLE = "onnxruntime"
#: worst NMSE that counts as the same result: in fp32, and where a runtime may use half precision
ALLOWED = {"ncnn-defaults": 1e-2}
ALLOWED_FP32 = 1e-6
TITLES = {
    "vkconv": "vkconv",
    "torch": "PyTorch, CPU",
    "onnxruntime": "onnxruntime, CPU",
    "ncnn": "ncnn, Vulkan, fp32",
    "ncnn-defaults": "ncnn, Vulkan, its defaults",
    "opencv": "OpenCV DNN, Vulkan",
}
COLUMNS = (
    "runtime",
    "median ms",
    "p90 ms",
    "least ms",
    "vkconv is",
    "first result, cold s",
    "warm s",
    "peak MB",
    "NMSE",
)


def summarise(name: str, blocks: Mapping[str, Sequence[Row]]) -> Row:
    """A row of the table: over all runs of all blocks; ``ratios``: to vkconv, block by block."""
    own, base = blocks[name], blocks["vkconv"]
    reason = next((reply["reason"] for reply in own if "reason" in reply), None)
    if reason is not None:
        return {"reason": reason}
    times = sorted(t for reply in own for t in reply["times"])
    nmse = own[0].get("nmse")
    row = {
        "p50": statistics.median(times),
        "p90": times[min(len(times) - 1, int(0.9 * len(times)))],
        "least": times[0],
        "runs": len(times),
        "cold": own[0]["first"],
        "warm": min((reply["first"] for reply in own[1:]), default=None),
        "peak": max(reply["peak"] for reply in own),
        "nmse": nmse,
        "device": own[0]["device"],
        "versions": own[0]["versions"],
    }
    if name != "vkconv" and not any("reason" in reply for reply in base):
        pairs = zip(own, base, strict=True)
        row["ratios"] = [
            statistics.median(a["times"]) / statistics.median(b["times"]) for a, b in pairs
        ]
        others = sorted(t for reply in base for t in reply["times"])
        row["ratio"] = row["p50"] / statistics.median(others)
    if nmse is not None and not nmse <= ALLOWED.get(name, ALLOWED_FP32):
        row["wrong"] = f"its outputs differ from {ORACLE}'s (NMSE {nmse:.1e})"
    return row


def report(
    title: str, facts: Mapping[str, str], rows: Mapping[str, Row], arguments: Sequence[str]
) -> str:
    """Markdown that is readable as it stands: what was measured where, the table, the reasons."""
    lines = [f"# {title}, {datetime.date.today()}", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    for name, row in rows.items():
        if "device" in row:
            versions = ", ".join(f"{package} {v}" for package, v in row["versions"].items())
            device = ", ".join(row["device"].values())
            lines.append(f"- {TITLES[name]}: {versions} on {device}, {row['runs']} runs")
    given = shlex.join(["python", "scripts/bench", *arguments])
    lines += [f"- command: `{given}`", ""]
    measured = [cells(name, row) for name, row in rows.items() if "p50" in row]
    lines += table(COLUMNS, measured) if measured else []
    notes = [
        f"- {TITLES[name]}: {row.get('reason') or row['wrong']}"
        for name, row in rows.items()
        if "reason" in row or "wrong" in row
    ]
    return "\n".join(lines + (["", "Notes:", "", *notes] if notes else [])) + "\n"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns line up."""
    widths = [max(len(line[i]) for line in (heading, *rows)) for i in range(len(heading))]
    ruled = [heading, ["-" * width for width in widths], *rows]
    return [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in ruled
    ]


def cells(name: str, row: Row) -> tuple[str, ...]:
    def milliseconds(key: str) -> str:
        return f"{row[key] * 1e3:.1f}"

    known = "unknown" if row["nmse"] is None else f"{row['nmse']:.1e}"
    return (
        TITLES[name],
        milliseconds("p50"),
        milliseconds("p90"),
        milliseconds("least"),
        comparison(row),
        f"{row['cold']:.2f}",
        f"{row['warm']:.2f}" if row["warm"] else "",
        f"{row['peak'] / 1e6:.0f}",
        "(reference)" if name == ORACLE else known,
    )


def comparison(row: Row) -> str:
    """In words, with the least and the largest ratio of a round."""
    if "wrong" in row:
        return "not comparable"
    if "ratio" not in row:
        return ""
    ratios, word = [row["ratio"], min(row["ratios"]), max(row["ratios"])], "faster"
    if row["ratio"] < 1:
        ratios, word = [1 / row["ratio"], 1 / max(row["ratios"]), 1 / min(row["ratios"])], "slower"
    middle, least, most = (f"{ratio:.2f}" for ratio in ratios)
    return f"{middle}x {word} ({least} to {most})"


def machine() -> dict[str, str]:
    """What the figures depend on, without the machine's own name."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x.split(":")[1] for x in info.read_text().splitlines() if "model name" in x]
        cpu = models[0].strip() if models else cpu
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores{load}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
