"""``vkconv compile``: plans a model for a device and writes the plan with the packed weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vkconv.cli.terminal import Parser, console_on, guarded, one_line

__all__ = ["main", "shape_option"]


def main(argv: Sequence[str] | None = None, program: str = "vkconv compile") -> int:
    """Entry point of ``vkconv compile``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _compile(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Plan a model for a device, and write plan and packed weights to one file. It "
        "loads faster than the model and without the onnx package, on devices of the same kind.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write (default: the model's name, ending in .vkplan)",
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=N,N,...",
        help="the size of an input that the model leaves open; once for each such input",
    )
    parser.add_argument(
        "--device", default="auto", metavar="D", help="index or name as 'vkconv devices' lists them"
    )
    return parser


def _compile(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    shapes = dict(shape_option(parser, text) for text in options.shape)
    path = options.output or f"{os.path.splitext(options.model)[0]}.vkplan"

    from vkconv.cli.output import check_apart, check_writable
    from vkconv.cli.report import describe_device, format_bytes, print_pairs

    check_writable(path, "the plan file")
    check_apart([("the plan file", path)], [("the model", options.model)])

    from vkconv.compilation import compile_model

    made = compile_model(options.model, path, shapes=shapes, device=options.device)
    pairs = [("written", f"{path} ({format_bytes(made.bytes)})")]
    pairs += [("input", f"{name} {list(shape)}") for name, shape in made.inputs.items()]
    pairs += [("steps", f"{made.dispatches} dispatches, {len(made.hosts)} nodes on the host")]
    pairs += [("host", f"{node}: {reason}") for node, reason in made.hosts]
    pairs += [("device", describe_device(made.device))]
    print_pairs(console_on(sys.stdout), [(heading, one_line(text)) for heading, text in pairs])
    return 0


def shape_option(parser: Parser, text: str) -> tuple[str, tuple[int, ...]]:
    """``images=1,3,320,320`` in two parts; the name may hold any character."""
    name, _, sizes = text.rpartition("=")
    parts = sizes.replace("x", ",").split(",")
    if not name or not all(part.strip().isdecimal() for part in parts):
        parser.error(f"--shape takes NAME=N,N,... as in images=1,3,320,320, not '{text}'")
    return name, tuple(int(part) for part in parts)


if __name__ == "__main__":
    sys.exit(main())
