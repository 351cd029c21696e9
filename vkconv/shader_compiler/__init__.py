"""GLSL compute shaders to generated Python modules: when a package is built, never when it runs.

``scripts/compile_shaders.py`` makes ``vkconv/_spirv`` with it, and ``vkconv compile-shader`` the
modules of other packages' kernels. The package's build backend imports this room before anything is
installed, so it needs the standard library only; and a GLSL compiler on the machine.

    variants    ``#pragma vkconv`` lines and includes
    modules     calls the compiler, writes the module
    reflection  reads the interface out of the SPIR-V
"""

from __future__ import annotations

from vkconv.shader_compiler.modules import (
    COMPILERS,
    Compiler,
    compile_shader,
    compile_variant,
    find_compiler,
    include_folder,
    is_current,
    module_text,
    source_hash,
    written_hash,
)
from vkconv.shader_compiler.variants import ShaderError, Source, Variant, read_source

__all__ = [
    "COMPILERS",
    "Compiler",
    "ShaderError",
    "Source",
    "Variant",
    "compile_shader",
    "compile_variant",
    "find_compiler",
    "include_folder",
    "is_current",
    "module_text",
    "read_source",
    "source_hash",
    "written_hash",
]
