"""One shader to one generated module: each variant's SPIR-V (zlib, base64), and its interface."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vkconv.files import write_bytes
from vkconv.shader_compiler.reflection import ReflectionError, reflect
from vkconv.shader_compiler.variants import ShaderError, Source, Variant, read_source
from vkconv.shaders import FORMAT

TARGET = "vulkan1.1"
COMPILERS = ("glslangValidator", "glslang", "glslc")
NO_COMPILER = (
    f"no GLSL compiler found (looked for {', '.join(COMPILERS)}): install glslang-tools (Debian, "
    "Ubuntu), glslang (Fedora, Arch, Alpine, Homebrew) or the Vulkan SDK (Windows: 'scoop install "
    "vulkan')"
)


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


def module_text(
    source: Source, entries: Sequence[dict[str, Any]], compiler: Compiler, made_by: str
) -> str:
    """The generated Python module."""
    lines = [
        f'"""Made from {source.path.name} by {made_by}; do not edit."""',
        "",
        f"KERNEL = {source.kernel!r}",
        f"FORMAT = {FORMAT}",
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


def written_hash(module: Path) -> str:
    """The hash in a generated module; "" where there is none."""
    try:
        with module.open(encoding="utf-8") as file:
            head = file.read(1000)
    except FileNotFoundError:
        return ""
    found = re.search(r"^SOURCE_HASH = '(\w+)'$", head, re.MULTILINE)
    return found[1] if found else ""


def include_folder() -> Path:
    """Where the GLSL files lie that any shader may include: tensor.glsl, grid.glsl and the others.

    In an installation they are beside this package, in a source checkout under shaders/.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "glsl", package.parent / "shaders" / "include"):
        if folder.is_dir():
            return folder
    raise ShaderError(f"the GLSL include files of vkconv are missing from {package}; install again")


def compile_shader(
    shader: str | Path, output: str | Path | None = None, compiler: str | None = None
) -> tuple[Path, bool]:
    """Compile a .comp of another package to the generated module ``output``, which it ships.

    ``output``: a .py file or a folder; ``<kernel>_spv.py`` beside the shader when not given.
    Returns the module's path, and whether it was written: one that is up to date is left. Raises
    ShaderError; its message has the compiler's lines.
    """
    source = read_source(Path(shader), include_folder())
    found = find_compiler(compiler)
    target = module_path(Path(shader), output)
    if written_hash(target) == source_hash(source, found):
        return target, False
    with ThreadPoolExecutor() as pool:
        entries = list(
            pool.map(
                lambda variant: compile_variant(source, variant, found, include_folder()),
                source.variants,
            )
        )
    text = module_text(source, entries, found, "vkconv compile-shader")
    write_bytes(str(target), text.encode(), "the compiled shader")
    return target, True


def is_current(
    shader: str | Path, output: str | Path | None = None, compiler: str | None = None
) -> bool:
    """Whether ``compile_shader`` would leave the module as it is."""
    source = read_source(Path(shader), include_folder())
    written = written_hash(module_path(Path(shader), output))
    return written == source_hash(source, find_compiler(compiler))


def module_path(shader: Path, output: str | Path | None = None) -> Path:
    """The file that the module of ``shader`` goes to."""
    name = f"{shader.stem}_spv.py"
    if output is None:
        return shader.with_name(name)
    target = Path(output)
    if target.is_dir():
        return target / name
    if target.suffix != ".py" or not target.stem.isidentifier():
        raise ShaderError(f"'{target}' is no folder and no name of a Python module (as in {name})")
    return target
