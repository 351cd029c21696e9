"""``vkconv compile-shader``: modules are written or kept; faults are lines without traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shaders.generated import load
from vkconv import shaders
from vkconv.cli.main import main
from vkconv.shader_compiler import modules
from vkconv.shader_compiler.variants import ShaderError

SHADER = """#version 450
#extension GL_GOOGLE_include_directive : require
#pragma vkconv variants(access = storage_texel, ssbo)
#include "tensor.glsl"
#include "grid.glsl"
#include "mine.glsl"
READ_VEC4(0, x);
WRITE_BUFFER(1, y, vec4);
layout(push_constant) uniform Push { int x_offset; int y_offset; int count; };
void main() { FOR_X(i, count) { y[y_offset + i] = MINE * LOAD(x, x_offset + i); } }
"""


@pytest.fixture
def shader(tmp_path: Path) -> Path:
    (tmp_path / "mine.glsl").write_text("#define MINE 2.0\n")
    path = tmp_path / "twice.comp"
    path.write_text(SHADER)
    return path


def test_a_module_is_written_beside_the_shader(
    shader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile-shader", str(shader)]) == 0
    path = shader.with_name("twice_spv.py")
    assert capsys.readouterr().out == f"{path}: written\n"
    module = load(path)
    assert (module.KERNEL, module.FORMAT) == ("twice", shaders.FORMAT)
    assert (module.__doc__ or "").startswith("Made from twice.comp by vkconv compile-shader")
    assert list(module.VARIANTS) == ["access=storage_texel", "access=ssbo"]
    shaders.add_kernel("com.example.twice", module)
    try:
        loaded = shaders.load("com.example.twice", (("access", "ssbo"),))
        assert [b.name for b in loaded.buffers] == ["x", "y"]
    finally:
        shaders.remove_kernel("com.example.twice")


def test_what_is_current_is_left(shader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = shader.parent / "made.py"
    assert main(["compile-shader", str(shader), "-o", str(target)]) == 0
    assert load(target).KERNEL == "twice"
    before = target.stat().st_mtime_ns
    assert main(["compile-shader", str(shader), "-o", str(target)]) == 0
    assert "up to date" in capsys.readouterr().out
    assert main(["compile-shader", "--check", str(shader), "-o", str(target)]) == 0
    (shader.parent / "mine.glsl").write_text("#define MINE 3.0\n")
    assert main(["compile-shader", "--check", str(shader), "-o", str(target)]) == 1
    assert "twice.comp: its module is missing or out of date" in capsys.readouterr().err
    assert target.stat().st_mtime_ns == before


def test_several_go_to_a_folder(shader: Path, tmp_path: Path) -> None:
    other = tmp_path / "again.comp"
    other.write_text(SHADER)
    folder = tmp_path / "package"
    folder.mkdir()
    assert main(["compile-shader", str(shader), str(other), "-o", str(folder)]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["again_spv.py", "twice_spv.py"]


def test_faults_are_lines_without_traceback(
    shader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.comp"
    broken.write_text(SHADER.replace("MINE *", "nothing *"))
    latin = tmp_path / "latin.comp"
    latin.write_bytes(b"// \xe9\n")
    absent = tmp_path / "absent.comp"
    files = [str(f) for f in (absent, broken, latin, shader)]
    assert main(["compile-shader", *files]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert all(line.startswith("vkconv compile-shader: ") for line in lines)
    for text in ("absent.comp: cannot be read: No such file", "broken.comp [access=", "nothing"):
        assert any(text in line for line in lines), text
    assert any("latin.comp: this is no GLSL text in UTF-8" in line for line in lines)
    assert "Traceback" not in captured.err
    # one shader's fault keeps no other from being compiled, and leaves no file
    assert "twice_spv.py: written" in captured.out
    assert not (tmp_path / "broken_spv.py").exists()


@pytest.mark.parametrize("name", ["module.txt", "no-name.py", "absent_folder/"])
def test_outputs_that_are_no_module(
    shader: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile-shader", str(shader), "-o", str(shader.parent / name)]) == 1
    assert "is no folder and no name of a Python module" in capsys.readouterr().err


def test_several_shaders_do_not_go_to_one_module(
    shader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile-shader", str(shader), str(shader), "-o", "one.py"]) == 2
    assert "2 shaders do not go to one module" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(shader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile-shader", str(shader), "-o", str(shader.parent / "none" / "m.py")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot write the compiled shader to" in line


def test_without_a_compiler_one_line_says_what_to_install(
    shader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(shader.parent))
    assert main(["compile-shader", str(shader)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "no GLSL compiler found" in line and "install glslang-tools (Debian" in line


def test_an_installation_without_includes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(modules, "__file__", str(tmp_path / "a" / "b" / "modules.py"))
    with pytest.raises(ShaderError, match="include files of vkconv are missing"):
        modules.include_folder()
