"""The shader compiler script: variants, incremental builds, staleness, and what its errors say."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from compile_shaders import ShaderError, compile_shaders, main, stale_modules
from tests.shaders.generated import load
from vkconv.shader_compiler import COMPILERS, read_source

COPY = """#version 450
#extension GL_GOOGLE_include_directive : require
#include "sizes.glsl"
layout(local_size_x = SIZE) in;
layout(binding = 0, std430) readonly buffer x_block { float x[]; };
layout(binding = 1, std430) writeonly buffer y_block { float y[]; };
layout(push_constant) uniform Push { int count; };
void main() {
    int i = int(gl_GlobalInvocationID.x);
    if (i < count) y[i] = x[i];
}
"""
AXES = """#version 450
#pragma vkconv variants(access = texel, ssbo; \\
    dtype = float, int)
#if defined(ACCESS_TEXEL) == defined(ACCESS_SSBO) || defined(DTYPE_FLOAT) == defined(DTYPE_INT)
#error one value per axis
#endif
#ifdef DTYPE_FLOAT
#define T float
#else
#define T int
#endif
layout(local_size_x = 8) in;
layout(binding = 0, std430) buffer BLOCK { T x[]; };
#ifdef ACCESS_TEXEL
layout(binding = 1) uniform samplerBuffer table;
#endif
void main() { x[0] = T(1); }
""".replace("BLOCK", "x_block")


@pytest.fixture
def shaders(tmp_path: Path) -> Path:
    folder = tmp_path / "shaders"
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "sizes.glsl").write_text('#include "deep.glsl"\n')
    (folder / "include" / "deep.glsl").write_text("#define SIZE 64\n")
    (folder / "copy.comp").write_text(COPY)
    (folder / "axes.comp").write_text(AXES)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "_spirv"


def test_generated_modules(shaders: Path, output: Path) -> None:
    assert compile_shaders(shaders, output) == ["axes", "copy"]
    assert sorted(path.name for path in output.iterdir()) == [
        "__init__.py",
        "axes_spv.py",
        "copy_spv.py",
    ]
    copy = load(output / "copy_spv.py")
    assert re.fullmatch("[0-9a-f]{64}", copy.SOURCE_HASH)
    assert copy.COMPILER
    assert copy.AXES == {}
    assert list(copy.VARIANTS) == [""]
    assert copy.VARIANTS[""]["interface"] == {
        "buffers": [
            ["x", 0, "storage_buffer", 1, True, False],
            ["y", 1, "storage_buffer", 1, False, True],
        ],
        "push": [["count", 0, "int", 1]],
        "push_size": 4,
        "spec": [],
        "capabilities": ["Shader"],
    }
    code = zlib.decompress(base64.b64decode(copy.VARIANTS[""]["code"]))
    assert code[:4] == b"\x03\x02\x23\x07"


def test_variants_are_the_product_of_the_axes(shaders: Path, output: Path) -> None:
    compile_shaders(shaders, output)
    axes = load(output / "axes_spv.py")
    assert axes.AXES == {"access": ["texel", "ssbo"], "dtype": ["float", "int"]}
    assert list(axes.VARIANTS) == [
        "access=texel,dtype=float",
        "access=texel,dtype=int",
        "access=ssbo,dtype=float",
        "access=ssbo,dtype=int",
    ]
    names = {
        key: [row[0] for row in entry["interface"]["buffers"]]
        for key, entry in axes.VARIANTS.items()
    }
    assert names["access=texel,dtype=int"] == ["x", "table"]
    assert names["access=ssbo,dtype=int"] == ["x"]


def test_keys_are_sorted_by_axis(shaders: Path) -> None:
    (shaders / "axes.comp").write_text("#pragma vkconv variants(b = one; a = two, three)\n")
    source = read_source(shaders / "axes.comp", shaders / "include")
    assert [variant.key for variant in source.variants] == ["a=two,b=one", "a=three,b=one"]
    assert source.variants[0].defines == ["-DB_ONE=1", "-DA_TWO=1"]


def test_exclude_drops_combinations(shaders: Path) -> None:
    (shaders / "axes.comp").write_text(
        "#pragma vkconv variants(access = texel, ssbo; dtype = float, int)\n"
        "#pragma vkconv exclude(dtype = int, access = texel)\n"
    )
    source = read_source(shaders / "axes.comp", shaders / "include")
    assert [variant.key for variant in source.variants] == [
        "access=texel,dtype=float",
        "access=ssbo,dtype=float",
        "access=ssbo,dtype=int",
    ]


def test_a_pragma_in_a_comment_does_not_count(shaders: Path) -> None:
    (shaders / "axes.comp").write_text(
        "// #pragma vkconv variants(a = b)\n/*\n#pragma vkconv variants(a = c)\n*/\n"
        "  #  pragma vkconv variants(a = d) // chosen\n"
    )
    source = read_source(shaders / "axes.comp", shaders / "include")
    assert source.axes == {"a": ("d",)}


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["#pragma vkconv"], 1, "malformed '#pragma vkconv'"),
        (["", "#pragma vkconv variant(a = b)"], 2, "malformed '#pragma vkconv'"),
        (["#pragma vkconv variants(a = b"], 1, "malformed '#pragma vkconv'"),
        (["/*", "*/", "#pragma vkconv variants(a)"], 3, "malformed axis 'a'"),
        (["#pragma vkconv variants(a = b,)"], 1, "'' is no name"),
        (["#pragma vkconv variants(a = B)"], 1, "'B' is no name"),
        (["#pragma vkconv variants(a = b, b)"], 1, "named twice"),
        (["#pragma vkconv variants(a = b; a = c)"], 1, "named twice"),
        (["#pragma vkconv variants(a = \\", "b)", "#pragma vkconv oh"], 3, "malformed"),
        (["#pragma vkconv variants(a = b)", "#pragma vkconv variants(c = d)"], 2, "one 'variants'"),
        (["#pragma vkconv variants(a = b, c)", "#pragma vkconv exclude(a)"], 2, "malformed pair"),
        (["#pragma vkconv exclude(a = b)"], 1, "matches no variant"),
        (["", '#include "absent.glsl"'], 2, "cannot find the include file 'absent.glsl'"),
    ],
)
def test_malformed_pragmas_name_file_and_line(
    shaders: Path, output: Path, lines: list[str], line: int, message: str
) -> None:
    (shaders / "axes.comp").write_text("\n".join(lines) + "\n")
    with pytest.raises(ShaderError) as caught:
        compile_shaders(shaders, output)
    assert f"axes.comp:{line}: " in str(caught.value)
    assert message in str(caught.value)
    assert (output / "copy_spv.py").is_file()


def test_excluding_everything_is_an_error(shaders: Path, output: Path) -> None:
    (shaders / "axes.comp").write_text(
        "#pragma vkconv variants(a = b)\n#pragma vkconv exclude(a = b)\n"
    )
    with pytest.raises(ShaderError, match="every variant is excluded"):
        compile_shaders(shaders, output)


def test_a_pragma_in_an_include_is_an_error(shaders: Path, output: Path) -> None:
    (shaders / "include" / "sizes.glsl").write_text("\n#pragma vkconv variants(a = b)\n")
    with pytest.raises(ShaderError, match=r"sizes\.glsl:2: .*belongs in the \.comp"):
        compile_shaders(shaders, output)


def test_what_is_unchanged_is_skipped(shaders: Path, output: Path) -> None:
    compile_shaders(shaders, output)
    before = (output / "copy_spv.py").stat().st_mtime_ns
    assert compile_shaders(shaders, output) == []
    (shaders / "include" / "deep.glsl").write_text("#define SIZE 32\n")
    assert compile_shaders(shaders, output) == ["copy"]
    assert (output / "copy_spv.py").stat().st_mtime_ns > before


def test_only_the_kernels_named(shaders: Path, output: Path) -> None:
    assert compile_shaders(shaders, output, ["copy"]) == ["copy"]
    assert not (output / "axes_spv.py").exists()
    with pytest.raises(ShaderError, match="no shader for kernel absent"):
        compile_shaders(shaders, output, ["absent"])


def test_a_glsl_error_names_shader_variant_and_line(
    shaders: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = AXES.replace("void main", "#ifdef DTYPE_INT\nint bad = ;\n#endif\nvoid main")
    (shaders / "axes.comp").write_text(broken)
    assert main(["--shaders", str(shaders), "--output", str(output)]) == 1
    message = capsys.readouterr().err
    assert "axes.comp [access=texel,dtype=int]: does not compile" in message
    assert "axes.comp [access=ssbo,dtype=int]: does not compile" in message
    assert "dtype=float" not in message
    assert re.search(r"axes\.comp:\d+", message)
    # one shader's fault keeps no other from being compiled
    assert (output / "copy_spv.py").is_file()
    assert not (output / "axes_spv.py").exists()


def test_an_interface_error_names_shader_and_variant(shaders: Path, output: Path) -> None:
    (shaders / "axes.comp").write_text(AXES.replace("binding = 1", "set = 1, binding = 1"))
    with pytest.raises(ShaderError, match=r"axes\.comp \[access=texel,dtype=float\]: .*'table'"):
        compile_shaders(shaders, output)


def test_orphans_are_deleted(shaders: Path, output: Path) -> None:
    compile_shaders(shaders, output)
    (shaders / "axes.comp").unlink()
    assert stale_modules(shaders, output) == ["orphan: axes_spv.py (no such shader)"]
    compile_shaders(shaders, output)
    assert not (output / "axes_spv.py").exists()
    assert stale_modules(shaders, output) == []


def test_check_reports_and_names_the_fix(
    shaders: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--shaders", str(shaders), "--output", str(output)]
    assert main([*arguments, "--check"]) == 1
    assert "missing: copy_spv.py (from copy.comp)" in capsys.readouterr().err
    assert not output.exists()
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    (shaders / "include" / "deep.glsl").write_text("#define SIZE 32\n")
    capsys.readouterr()
    assert main([*arguments, "--check"]) == 1
    message = capsys.readouterr().err
    assert "stale: copy_spv.py" in message
    assert "axes" not in message
    assert "to fix: python scripts/compile_shaders.py" in message


def test_without_a_compiler_one_line_says_what_to_install(tmp_path: Path) -> None:
    script = Path(sys.modules["compile_shaders"].__file__ or "")
    answer = subprocess.run(
        [sys.executable, str(script), "--output", str(tmp_path / "_spirv")],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    assert "no GLSL compiler found" in answer.stderr
    assert "install glslang-tools (Debian, Ubuntu), glslang (Fedora" in answer.stderr


def test_an_empty_folder_is_an_error(tmp_path: Path, output: Path) -> None:
    with pytest.raises(ShaderError, match=r"no \*\.comp files"):
        compile_shaders(tmp_path, output)


def test_every_compiler_present_reflects_the_same_interface(shaders: Path, tmp_path: Path) -> None:
    present = [name for name in COMPILERS if shutil.which(name)]
    interfaces = []
    for name in present:
        output = tmp_path / name
        compile_shaders(shaders, output, compiler=name)
        assert stale_modules(shaders, output, name) == []
        interfaces.append(
            [
                {key: entry["interface"] for key, entry in load(path).VARIANTS.items()}
                for path in sorted(output.glob("*_spv.py"))
            ]
        )
    assert all(interface == interfaces[0] for interface in interfaces)
