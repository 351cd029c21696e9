"""``vkconv``: chooses the command and hands it the rest of the arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vkconv.cli.terminal import Parser, guarded

__all__ = ["main"]

_COMMANDS = {
    "run": "detect objects in an image",
    "devices": "list the Vulkan devices of this machine",
    "inspect": "show what is in a model, and where each node would run",
    "convert": "turn trained weights into one fused ONNX file",
    "compile": "plan a model for a device, in a file that loads fast",
    "bench": "measure a model, beside other runtimes",
    "tune": "time the kernels for a model's layers on a device, and keep the fastest",
    "verify": "compare every node of a model with the reference, on this device",
    "doctor": "what this machine offers, and whether it works; for bug reports",
    "fuse": "fuse a model's linear branches, with a report and a proof",
    "compile-shader": "compile the kernels of custom operators",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``vkconv``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded("vkconv", lambda: _dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    # Each command parses its own arguments: argparse's subparsers cannot take positional
    # arguments that are mixed with options, as in "run MODEL -o OUT.png IMAGE".
    if arguments and arguments[0] in _COMMANDS:
        from importlib import import_module

        command = import_module(f"vkconv.cli.{arguments[0].replace('-', '_')}")
        code: int = command.main(arguments[1:], program=f"vkconv {arguments[0]}")
        return code
    width = max(map(len, _COMMANDS)) + 2
    listed = "\n".join(f"  {name:<{width}}{about}" for name, about in _COMMANDS.items())
    parser = Parser(
        prog="vkconv",
        usage="vkconv [-h] [--version] COMMAND ...",
        description="Run ONNX detectors on any GPU that speaks Vulkan.",
        epilog=f"commands:\n{listed}\n\nvkconv COMMAND --help tells about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those below")
    options, _ = parser.parse_known_args(arguments)
    if options.version:
        import vkconv

        print(f"vkconv {vkconv.__version__}")
        return 0
    if options.command is None:
        parser.error(f"name a command: {', '.join(_COMMANDS)}")
    parser.error(f"no command '{options.command}'; there are {', '.join(_COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())
