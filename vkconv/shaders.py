"""Compiled kernels by name and variant: the only reader of ``vkconv/_spirv``.

``scripts/compile_shaders.py`` writes one generated module per ``shaders/*.comp``: for each variant
the SPIR-V (zlib, base64) and the interface reflected from it. Here they become ShaderModule
objects. It must not know what a kernel computes, nor any device.

Other packages add kernels of their own, made by ``vkconv compile-shader``. Their names have a dot
(``com.example.corner_pool``), so that no kernel of this package ever takes one.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import pkgutil
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from vkconv.entry_points import load_operators
from vkconv.errors import BuildError

#: raise it with every change to what a generated module contains, or to what reflection says
FORMAT = 2
#: what devices are opened with (SPIR-V's names); a kernel that declares another capability could
#: not run
CAPABILITIES = frozenset(
    {"Shader", "SampledBuffer", "ImageBuffer", "GroupNonUniform", "GroupNonUniformShuffle"}
)
_MAGIC = 0x07230203
BufferKind = Literal["storage_buffer", "storage_texel", "uniform_texel"]
Variant = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BufferField:
    """One binding of descriptor set 0; ``components`` is 4 for vec4 and texels, 1 for scalars."""

    name: str
    binding: int
    kind: BufferKind
    components: int
    reads: bool
    writes: bool


@dataclass(frozen=True)
class PushField:
    """A push constant: byte offset, scalar type, and count (1, or the length of an array)."""

    name: str
    offset: int
    type: Literal["int", "uint", "float"]
    count: int


@dataclass(frozen=True)
class SpecField:
    """A specialization constant."""

    name: str
    id: int
    type: Literal["int", "uint", "float", "bool"]
    default: int | float


@dataclass(frozen=True, eq=False)
class ShaderModule:
    """SPIR-V of one kernel in one variant, with its interface."""

    kernel: str
    variant: Variant
    code: bytes
    buffers: tuple[BufferField, ...]
    push: tuple[PushField, ...]
    push_size: int
    spec: tuple[SpecField, ...]
    #: SPIR-V capabilities the module declares, e.g. "GroupNonUniformShuffle"
    capabilities: tuple[str, ...]


def kernels() -> list[str]:
    """Names of all compiled kernels."""
    spec = importlib.util.find_spec("vkconv._spirv")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    names = [module.name for module in pkgutil.iter_modules(folders)]
    found = sorted(name.removesuffix("_spv") for name in names if name.endswith("_spv"))
    if not found:
        raise BuildError(
            "this installation holds no compiled shaders; install the package with pip, or run "
            "'python scripts/compile_shaders.py' in a source checkout"
        )
    return found


#: generated modules of other packages, by kernel
_added: dict[str, Any] = {}


def add_kernel(kernel: str, generated: Any) -> None:
    """Make a generated module of another package known as ``kernel``, a name with a dot.

    One that is known already is replaced. Raises BuildError when the module is not one that
    ``vkconv compile-shader`` of this version writes, or needs what devices are not opened with.
    """
    origin = getattr(generated, "__name__", type(generated).__name__)
    again = "compile its shader again with 'vkconv compile-shader'"
    if getattr(generated, "FORMAT", None) != FORMAT:
        raise BuildError(f"'{origin}' is no compiled shader of this version of vkconv; {again}")
    try:
        modules = [
            _module(kernel, _parsed_key(key), entry) for key, entry in generated.VARIANTS.items()
        ]
        axes_are_lists = all(len(values) for values in generated.AXES.values())
    except Exception as error:  # whatever a hand-made module may hold
        raise BuildError(
            f"'{origin}' is damaged ({type(error).__name__}: {error}); {again}"
        ) from None
    for module in modules:
        if len(module.code) < 20 or struct.unpack("<I", module.code[:4]) != (_MAGIC,):
            raise BuildError(f"'{origin}' is damaged (it holds no SPIR-V); {again}")
        if lacking := set(module.capabilities) - CAPABILITIES:
            raise BuildError(
                f"kernel '{kernel}' needs {', '.join(sorted(lacking))}, which vkconv opens no "
                "device with; write the shader without"
            )
    if not modules or not axes_are_lists:
        raise BuildError(f"'{origin}' is damaged (it has no variants); {again}")
    _added[kernel] = generated
    _forget()


def remove_kernel(kernel: str) -> None:
    """Undo ``add_kernel``."""
    _added.pop(kernel, None)
    _forget()


def added_kernels() -> dict[str, Any]:
    """The generated modules of other packages, by kernel."""
    return dict(_added)


def _forget() -> None:
    for cached in (_generated, axes, load):
        cached.cache_clear()


@cache
def _generated(kernel: str) -> Any:
    if "." in kernel:
        return _generated_elsewhere(kernel)
    name = f"vkconv._spirv.{kernel}_spv"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, "vkconv._spirv"):
            raise
    meant = next((name for name in _added if name.endswith(f".{kernel}")), None)
    if meant is not None:
        raise BuildError(f"there is no kernel '{kernel}'; was '{meant}' meant?")
    known = ", ".join(kernels())
    raise BuildError(
        f"kernel '{kernel}' is not compiled (there are: {known}); "
        "run 'python scripts/compile_shaders.py'"
    )


def _generated_elsewhere(kernel: str) -> Any:
    if kernel not in _added:
        load_operators()
    if kernel not in _added:
        known = ", ".join(sorted(_added)) or "none is"
        raise BuildError(
            f"kernel '{kernel}' is not registered (registered: {known}); give its compiled "
            "module to register_operator(..., kernels=[...])"
        )
    return _added[kernel]


@cache
def axes(kernel: str) -> dict[str, tuple[str, ...]]:
    """The kernel's variant axes and their values, e.g. ``{"access": ("texel", "ssbo")}``."""
    return {name: tuple(values) for name, values in _generated(kernel).AXES.items()}


def variants(kernel: str) -> list[Variant]:
    """Every variant of the kernel, as sorted (axis, value) pairs."""
    return sorted(_parsed_key(key) for key in _generated(kernel).VARIANTS)


def _parsed_key(key: str) -> Variant:
    pairs = (pair.partition("=") for pair in key.split(",") if pair)
    return tuple((axis, value) for axis, _, value in pairs)


@cache
def load(kernel: str, variant: Variant = ()) -> ShaderModule:
    """The module of ``kernel`` in ``variant`` ((axis, value) pairs sorted by axis)."""
    generated = _generated(kernel)
    key = ",".join(f"{axis}={value}" for axis, value in sorted(variant))
    try:
        entry = generated.VARIANTS[key]
    except KeyError:
        known = "; ".join(generated.VARIANTS)
        raise BuildError(f"kernel '{kernel}' has no variant '{key}' (it has: {known})") from None
    return _module(kernel, variant, entry)


def _module(kernel: str, variant: Variant, entry: Any) -> ShaderModule:
    interface = entry["interface"]
    return ShaderModule(
        kernel=kernel,
        variant=tuple(sorted(variant)),
        code=zlib.decompress(base64.b64decode(entry["code"])),
        buffers=tuple(BufferField(*row) for row in interface["buffers"]),
        push=tuple(PushField(*row) for row in interface["push"]),
        push_size=interface["push_size"],
        spec=tuple(SpecField(*row) for row in interface["spec"]),
        capabilities=tuple(interface["capabilities"]),
    )
