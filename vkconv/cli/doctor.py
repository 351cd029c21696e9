"""``vkconv doctor``: what this machine offers and whether it works, as one block to paste."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vkconv.cli.options import add_device
from vkconv.cli.terminal import Parser, guarded, one_line

if TYPE_CHECKING:
    from vkconv.diagnosis.report import Diagnosis

__all__ = ["main"]

_LEAST_WIDTH = 13


def main(argv: Sequence[str] | None = None, program: str = "vkconv doctor") -> int:
    """Entry point of ``vkconv doctor``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _doctor(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Look at versions, the Vulkan loader, drivers, devices and the cache folder, "
        "and test every kernel family on a device. Paste the output into a bug report. The exit "
        "code is 1 when something keeps models from running, or gives wrong results.",
    )
    about = "what the self-test runs on: index or name as 'vkconv devices' lists them"
    add_device(parser, about)
    parser.add_argument("--no-self-test", action="store_true", help="only look, run nothing")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    return parser


def _doctor(program: str, arguments: list[str]) -> int:
    options = _parser(program).parse_args(arguments)
    from vkconv.diagnosis.report import diagnose

    made = diagnose(options.device, self_test=not options.no_self_test)
    if options.json:
        print(json.dumps(record(made), indent=1, allow_nan=False))
    else:
        print("\n".join(_lines(made)))
    return 0 if made.is_well else 1


def _lines(made: Diagnosis) -> list[str]:
    """The report as plain text."""
    lines: list[str] = []
    for title, rows in made.sections.items():
        lines += [title.upper(), *_pairs(rows), ""]
    if made.families:
        seconds = sum(result.seconds for result in made.families)
        lines.append(f"SELF-TEST on {one_line(made.tested)} ({seconds:.1f} s)")
        width = max(len(result.family) for result in made.families) + 2
        for result in made.families:
            nodes = f"{result.nodes} node{'s' * (result.nodes != 1)}"
            about = f"{nodes}, {len(result.kernels)} kernels, {result.seconds:.2f} s"
            if result.hosts:
                about += f"; on the host here: {', '.join(result.hosts)}"
            state = "ok  " if result.holds else "FAIL"
            failure = f"  {one_line(result.failure)}" if result.failure else ""
            lines.append(f"  {state}  {result.family:<{width}}{about}{failure}")
        lines.append("")
    for finding in made.findings:
        kind = "WARNING" if finding.is_warning else "ERROR"
        lines.append(f"{kind}: {one_line(finding.what)}")
        lines.append(f"  remedy: {one_line(finding.remedy)}")
    lines.append(f"RESULT: {verdict(made)}")
    return lines


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max([_LEAST_WIDTH, *(len(one_line(heading)) for heading, _ in rows)]) + 2
    return [f"  {one_line(heading):<{width}}{one_line(value)}".rstrip() for heading, value in rows]


def verdict(made: Diagnosis) -> str:
    """One line: well, or how many errors."""
    errors = sum(not finding.is_warning for finding in made.findings)
    warnings = len(made.findings) - errors
    if errors:
        return f"{errors} error{'s' * (errors != 1)}: see above"
    tested = "all kernel families work" if made.families else "nothing was run"
    if warnings:
        return f"{tested}, with {warnings} warning{'s' * (warnings != 1)}"
    return tested


def record(made: Diagnosis) -> dict[str, Any]:
    """The report for programs; a heading that comes several times has a list."""
    sections: dict[str, dict[str, list[str]]] = {}
    for title, rows in made.sections.items():
        entries = sections.setdefault(title, {})
        for heading, value in rows:
            entries.setdefault(heading, []).append(value)
    return {
        "well": made.is_well,
        "verdict": verdict(made),
        "sections": {
            title: {name: v[0] if len(v) == 1 else v for name, v in entries.items()}
            for title, entries in sections.items()
        },
        "tested": made.tested or None,
        "self_test": [
            {
                "family": result.family,
                "holds": result.holds,
                "nodes": result.nodes,
                "kernels": list(result.kernels),
                "seconds": round(result.seconds, 3),
                "failure": result.failure or None,
                "hosts": list(result.hosts),
            }
            for result in made.families
        ],
        "findings": [
            {"level": "warning" if f.is_warning else "error", "what": f.what, "remedy": f.remedy}
            for f in made.findings
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
