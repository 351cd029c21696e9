#!/usr/bin/env python3
"""Compile ``shaders/*.comp`` in every variant to ``vkconv/_spirv/<kernel>_spv.py``.

    python scripts/compile_shaders.py              compile what has changed
    python scripts/compile_shaders.py conv2d       only the kernels named
    python scripts/compile_shaders.py --check      say what is stale, and exit 1 if anything is

Only the standard library: the package's build backend imports this file before anything is
installed. A generated module holds each variant's SPIR-V (zlib, base64) with the interface
reflected from it, and a hash over all that went into it, by which an unchanged shader is skipped.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shader_variants import ShaderError, Source, Variant, read_source
from spirv_reflection import ReflectionError, reflect

__all__ = ["ShaderError", "compile_shaders", "find_compiler", "main", "stale_modules"]

ROOT = Path(__file__).resolve().parent.parent
SHADERS = ROOT / "shaders"
OUTPUT = ROOT / "vkconv" / "_spirv"
#: raise it with every change to what a generated module contains, spirv_reflection.py included
FORMAT = 1
TARGET = "vulkan1.1"
COMPILERS = ("glslangValidator", "glslang", "glslc")
NO_COMPILER = (
    f"no GLSL compiler found (looked for {', '.join(COMPILERS)}): install glslang-tools (Debian, "
    "Ubuntu), glslang (Fedora, Arch, Alpine, Homebrew) or the Vulkan SDK (Windows: 'scoop install "
    "vulkan')"
)
FIX = "python scripts/compile_shaders.py"


@dataclass(frozen=True)
class Compiler:
    """A GLSL compiler on this machine and how to call it."""

    path: str
    version: str
    flags: tuple[str, ...]

    def command(
        self, source: Path, include: Path, output: Path, defines: Sequence[str]
    ) -> list[str]:
        paths = [f"-I{include}", "-o", str(output), str(source)]
        return [self.path, *self.flags, *defines, *paths]


def find_compiler(name: str | None = None) -> Compiler:
    """The first of COMPILERS on PATH (or ``name``), or ShaderError with the package to install."""
    path = next((p for p in map(shutil.which, [name] if name else COMPILERS) if p), None)
    if path is None:
        raise ShaderError(f"no GLSL compiler '{name}'" if name else NO_COMPILER)
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not lines:
        raise ShaderError(f"the GLSL compiler {path} does not run: {answer.stderr.strip()}")
    if Path(path).stem == "glslc":
        # -O0: the optimizer drops the names that reflection reads
        flags = ("-O0", f"--target-env={TARGET}", "-fshader-stage=compute")
        return Compiler(path, "; ".join(lines[:3]), flags)
    return Compiler(path, lines[0], ("--target-env", TARGET, "-S", "comp"))


def source_hash(source: Source, compiler: Compiler) -> str:
    """Changes with everything that decides what a generated module contains."""
    parts = [str(FORMAT), compiler.version, *compiler.flags, *map(" ".join, source.texts.items())]
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def compile_variant(
    source: Source, variant: Variant, compiler: Compiler, include: Path
) -> dict[str, Any]:
    """One variant's SPIR-V and interface; ShaderError says shader, variant and compiler output."""
    title = f"{source.path.name}" + (f" [{variant.key}]" if variant.key else "")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.spv"
        command = compiler.command(source.path, include, output, variant.defines)
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode or not output.is_file():
            raise ShaderError(f"{title}: does not compile\n{_compiler_output(answer, source.path)}")
        code = output.read_bytes()
    if "warning" in answer.stdout.lower() + answer.stderr.lower():
        print(f"{title}: {_compiler_output(answer, source.path)}", file=sys.stderr)
    try:
        interface = reflect(code)
    except ReflectionError as error:
        raise ShaderError(f"{title}: {error}") from None
    return {"code": base64.b64encode(zlib.compress(code, 9)), "interface": interface}


def _compiler_output(answer: subprocess.CompletedProcess[str], path: Path) -> str:
    # glslang echoes the file's name first, and ends with lines that repeat the count of errors
    lines = (answer.stdout + answer.stderr).strip().splitlines()
    noise = re.compile(r"ERROR: \d+ compilation errors|SPIR-V is not generated")
    kept = [
        f"  {line}"
        for line in lines
        if line.strip() not in ("", str(path)) and not noise.match(line)
    ]
    return "\n".join(kept) or f"  the compiler exited with {answer.returncode}"


def module_text(source: Source, entries: Sequence[dict[str, Any]], compiler: Compiler) -> str:
    """The generated Python module."""
    lines = [
        f'"""Made from shaders/{source.path.name} by scripts/compile_shaders.py; do not edit."""',
        "",
        f"SOURCE_HASH = {source_hash(source, compiler)!r}",
        f"COMPILER = {compiler.version!r}",
        f"AXES = { {axis: list(values) for axis, values in source.axes.items()}!r}",
        "VARIANTS = {",
    ]
    for variant, entry in zip(source.variants, entries, strict=True):
        lines += [
            f"    {variant.key!r}: {{",
            f"        'code': {entry['code']!r},",
            "        'interface': {",
        ]
        lines += [f"            {key!r}: {value!r}," for key, value in entry["interface"].items()]
        lines += ["        },", "    },"]
    return "\n".join([*lines, "}", ""])


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` in one step: a reader, or a build beside this one, sees old or new."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would reach the wheel
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _written_hash(module: Path) -> str:
    try:
        with module.open(encoding="utf-8") as file:
            head = file.read(1000)
    except FileNotFoundError:
        return ""
    found = re.search(r"^SOURCE_HASH = '(\w+)'$", head, re.MULTILINE)
    return found[1] if found else ""


def _shader_paths(shaders: Path) -> list[Path]:
    paths = sorted(shaders.glob("*.comp"))
    if not paths:
        raise ShaderError(f"no *.comp files in {shaders}")
    return paths


def _orphans(paths: Iterable[Path], output: Path) -> list[Path]:
    wanted = {f"{path.stem}_spv.py" for path in paths}
    return sorted(path for path in output.glob("*_spv.py") if path.name not in wanted)


def stale_modules(
    shaders: Path = SHADERS, output: Path = OUTPUT, compiler: str | None = None
) -> list[str]:
    """One line for each module that is missing, stale or an orphan."""
    found = find_compiler(compiler)
    paths = _shader_paths(shaders)
    report = [] if (output / "__init__.py").is_file() else ["missing: __init__.py"]
    for path in paths:
        module = output / f"{path.stem}_spv.py"
        if not module.is_file():
            report.append(f"missing: {module.name} (from {path.name})")
        elif _written_hash(module) != source_hash(read_source(path, shaders / "include"), found):
            report.append(f"stale: {module.name} ({path.name}, an include or the compiler changed)")
    return report + [f"orphan: {path.name} (no such shader)" for path in _orphans(paths, output)]


def compile_shaders(
    shaders: Path = SHADERS,
    output: Path = OUTPUT,
    kernels: Sequence[str] = (),
    compiler: str | None = None,
) -> list[str]:
    """Bring ``output`` up to date and return the kernels compiled.

    A shader that fails does not keep the others from being written; ShaderError tells all failures.
    """
    found = find_compiler(compiler)
    paths = _shader_paths(shaders)
    if unknown := set(kernels) - {path.stem for path in paths}:
        raise ShaderError(f"no shader for kernel {', '.join(sorted(unknown))} in {shaders}")
    output.mkdir(parents=True, exist_ok=True)
    init = '"""Generated by scripts/compile_shaders.py: one module per kernel."""\n'
    if not (output / "__init__.py").is_file():
        write_atomically(output / "__init__.py", init)
    for orphan in _orphans(paths, output):
        orphan.unlink(missing_ok=True)

    include = shaders / "include"
    failures: list[str] = []
    jobs: list[tuple[Source, list[Future[dict[str, Any]]]]] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path in paths:
            if kernels and path.stem not in kernels:
                continue
            try:
                source = read_source(path, include)
            except ShaderError as error:
                failures.append(str(error))
                continue
            if _written_hash(output / f"{path.stem}_spv.py") != source_hash(source, found):
                futures = [
                    pool.submit(compile_variant, source, variant, found, include)
                    for variant in source.variants
                ]
                jobs.append((source, futures))
        done = []
        for source, futures in jobs:
            errors = [str(error) for error in (future.exception() for future in futures) if error]
            if errors:
                failures.append(_without_repeats(errors))
                continue
            entries = [future.result() for future in futures]
            write_atomically(
                output / f"{source.kernel}_spv.py", module_text(source, entries, found)
            )
            done.append(source.kernel)
    if failures:
        raise ShaderError("\n".join(failures))
    return done


def _without_repeats(errors: list[str]) -> str:
    """The first failure in full; a shader's other variants mostly repeat it, so they get a line."""
    others = [error.splitlines()[0] for error in errors[1:]]
    return "\n".join([errors[0], *others])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="compile shaders/*.comp into vkconv/_spirv")
    parser.add_argument("kernels", nargs="*", help="only these kernels (default: all)")
    parser.add_argument(
        "--check", action="store_true", help="report stale modules; compile nothing"
    )
    parser.add_argument("--shaders", type=Path, default=SHADERS, help="folder of the .comp files")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder of the generated package"
    )
    parser.add_argument("--compiler", help=f"instead of the first found of {', '.join(COMPILERS)}")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            report = stale_modules(options.shaders, options.output, options.compiler)
            for line in report:
                print(line, file=sys.stderr)
            if report:
                print(f"to fix: {FIX}", file=sys.stderr)
            return 1 if report else 0
        done = compile_shaders(options.shaders, options.output, options.kernels, options.compiler)
    except ShaderError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"compiled: {', '.join(done)}" if done else "all shaders are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
