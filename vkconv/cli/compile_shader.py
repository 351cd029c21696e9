"""``vkconv compile-shader``: kernels of custom operators to the modules that packages ship."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vkconv.cli.terminal import Parser, guarded, printable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, program: str = "vkconv compile-shader") -> int:
    """Entry point of ``vkconv compile-shader``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _compile(program, arguments))


def _parser(program: str) -> Parser:
    parser = Parser(
        prog=program,
        description="Compile the compute shaders of custom operators to Python modules. Ship the "
        "modules: no GLSL compiler is needed where they run. The shaders may include vkconv's own "
        "files (tensor.glsl, grid.glsl, ...); see docs/custom_operators.md.",
    )
    parser.add_argument("shaders", metavar="SHADER", nargs="+", help="a .comp file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="the module (.py) or its folder; SHADER's folder and <kernel>_spv.py when not given",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a module is out of date"
    )
    parser.add_argument(
        "--compiler", metavar="C", help="a GLSL compiler other than the first found"
    )
    return parser


def _compile(program: str, arguments: list[str]) -> int:
    from vkconv.shader_compiler import ShaderError, compile_shader, is_current

    parser = _parser(program)
    options = parser.parse_args(arguments)
    if len(options.shaders) > 1 and str(options.output).endswith(".py"):
        parser.error(f"{len(options.shaders)} shaders do not go to one module; name a folder")
    code = 0
    for shader in options.shaders:
        try:
            if options.check:
                if not is_current(shader, options.output, options.compiler):
                    print(f"{shader}: its module is missing or out of date", file=sys.stderr)
                    code = 1
                continue
            module, written = compile_shader(shader, options.output, options.compiler)
            print(f"{module}: {'written' if written else 'up to date'}")
        except ShaderError as error:
            # the compiler's lines, one for each fault; each reads alone
            for line in str(error).splitlines():
                print(f"{program}: {printable(line)}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
