"""``vkconv compile``: plans a model for a device and writes the plan with the packed weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vkconv.cli.options import add_device, add_shape
from vkconv.cli.terminal import Parser, console_on, guarded, one_line

__all__ = ["main"]


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
    add_shape(parser)
    add_device(parser)
    return parser


def _compile(program: str, arguments: list[str]) -> int:
    parser = _parser(program)
    options = parser.parse_args(arguments)
    path = options.output or f"{os.path.splitext(options.model)[0]}.vkplan"

    from vkconv.cli.output import check_apart, check_writable
    from vkconv.cli.report import describe_device, format_bytes, print_pairs

    check_writable(path, "the plan file")
    check_apart([("the plan file", path)], [("the model", options.model)])

    from vkconv.compilation import compile_model

    made = compile_model(options.model, path, shapes=options.shape, device=options.device)
    pairs = [("written", f"{path} ({format_bytes(made.bytes)})")]
    pairs += [("input", f"{name} {list(shape)}") for name, shape in made.inputs.items()]
    pairs += [("steps", f"{made.dispatches} dispatches, {len(made.hosts)} nodes on the host")]
    pairs += [("host", f"{node}: {reason}") for node, reason in made.hosts]
    pairs += [("device", describe_device(made.device))]
    print_pairs(console_on(sys.stdout), [(heading, one_line(text)) for heading, text in pairs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
