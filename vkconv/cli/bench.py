"""``vkconv bench``: a model on vkconv and on other runtimes: a table, JSON and an HTML page."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vkconv.cli.options import add_device, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from vkconv.benchmark import Result

__all__ = ["main"]

_DESCRIPTION = """\
Measure MODEL on vkconv and beside it on other runtimes, each block of runs in a process of its own,
in turns. Outputs are compared with onnxruntime's. What is not installed is listed as such.
"""
_COLUMNS = (
    "runtime", "median ms", "p90", "p99", "least", "vkconv is", "load, cold s", "warm s",
    "peak MB", "NMSE",
)  # fmt: skip


def main(argv: Sequence[str] | None = None, program: str = "vkconv bench") -> int:
    """Entry point of ``vkconv bench``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _bench(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(prog=program, description=_DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "--against",
        default="torch,onnxruntime,ncnn,opencv",
        metavar="A,B",
        help="of torch, onnxruntime, ncnn, ncnn-defaults (half precision where it likes), opencv; "
        "none: vkconv alone (default: %(default)s)",
    )
    parser.add_argument(
        "--torch",
        default="",
        metavar="MODULE:FUNCTION",
        help="what makes the model's torch module, importable from here (torch reads no ONNX)",
    )
    add_shape(parser)
    add_device(parser)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - for stdout")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")
    parser.add_argument("--markdown", metavar="FILE", help="write the report as Markdown")
    parser.add_argument("--rounds", type=_count, default=3, help="blocks of each (default: 3)")
    parser.add_argument("--seconds", type=float, default=5, help="of a block (default: 5)")
    parser.add_argument("--pause", type=float, default=2, help="seconds between (default: 2)")
    parser.add_argument(
        "--threads", type=int, default=0, help="of all runtimes (default: each one's own choice)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no word of what is going on")
    return parser


def _bench(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    for name in ("seconds", "pause", "threads"):
        value = getattr(options, name)
        if not 0 <= value <= 86400:
            parser.error(f"--{name} takes a number from 0 on, not {value:g}")
    if options.torch and not all(options.torch.partition(":")[::2]):
        parser.error(f"--torch takes MODULE:FUNCTION, not '{options.torch}'")

    from vkconv.cli.output import check_apart, check_writable

    kinds = (
        ("the JSON", options.json),
        ("the page", options.html),
        ("the report", options.markdown),
    )
    outputs = [(what, path) for what, path in kinds if path not in (None, "-")]
    if "-" in (options.html, options.markdown):
        parser.error("only --json can go to stdout; name a file for the page and the report")
    for what, path in outputs:
        check_writable(path, what)
    check_apart(outputs, [("the model", options.model)])

    from vkconv.benchmark import Settings, compare
    from vkconv.benchmark.markdown import report
    from vkconv.benchmark.page import page
    from vkconv.errors import InvalidInputError
    from vkconv.files import write_bytes

    if not os.path.isfile(options.model):
        raise InvalidInputError(f"there is no model '{options.model}'")
    against = [name for name in options.against.split(",") if name not in ("", "none")]
    settings = Settings(
        against=against,
        device=options.device,
        torch=options.torch,
        paths=[os.getcwd()] if options.torch else (),
        shapes=options.shape,
        rounds=options.rounds,
        seconds=options.seconds,
        pause=options.pause,
        threads=options.threads,
    )
    errors = console_on(sys.stderr)
    found = compare(
        options.model,
        settings,
        progress=lambda text: None if options.quiet else errors.print(one_line(text)),
    )
    command = shlex.join([*program.split(), *arguments])
    texts = {
        options.html: page(found, command),
        options.markdown: report(found, command),
        options.json: json.dumps(found.as_json(), indent=1) + "\n",
    }
    for what, path in outputs:
        write_bytes(path, texts[path].encode(), what)
    if options.json == "-":
        print(texts["-"], end="")
    _print(console_on(sys.stderr if options.json == "-" else sys.stdout), found, outputs)
    reason = found.rows["vkconv"].get("reason")
    if reason:
        raise InvalidInputError(f"vkconv could not be measured: {reason}")
    return 0


def _print(console: Console, found: Result, outputs: Sequence[tuple[str, str]]) -> None:
    from vkconv.benchmark.figures import TITLES
    from vkconv.benchmark.markdown import cells, split
    from vkconv.cli.report import print_pairs, print_table

    pairs = [("model", found.title)]
    pairs += [("input", f"{n} {' x '.join(map(str, s))}") for n, s in found.shapes.items()]
    pairs += list(found.machine.items())
    if device := found.rows["vkconv"].get("device"):
        pairs.append(("device", device))
    if found.ceilings:
        gflops, gbytes = found.ceilings["gflops"], found.ceilings["gbytes"]
        pairs.append(("ceilings", f"{gflops:.1f} GFLOP/s, {gbytes:.1f} GB/s (copy), measured"))
    print_pairs(console, [(heading, one_line(text)) for heading, text in pairs])
    rows = [cells(name, row) for name, row in found.rows.items() if "p50" in row]
    if rows:
        print_table(console, _COLUMNS, rows, right=_COLUMNS[1:])
    notes = [
        (TITLES[name], one_line(row.get("reason") or row["wrong"]))
        for name, row in found.rows.items()
        if "reason" in row or "wrong" in row
    ]
    if found.profile:
        console.print(f"\n{one_line(split(found))}")
    for name, text in notes:
        console.print(one_line(f"{name}: {text}"))
    print_pairs(console, [("wrote", f"{one_line(path)} ({what})") for what, path in outputs])


def _count(text: str) -> int:
    from argparse import ArgumentTypeError

    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise ArgumentTypeError(f"'{text}' is not a number from 1 to 1000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
