"""The package as it is installed: what the wheel holds, and what importing it costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build(hook: str, source: Path, target: Path) -> Path:
    """Call a hook of the build backend the way a front end does: alone, in the source folder."""
    program = (
        "import sys; sys.path.insert(0, 'scripts'); import build_backend; "
        f"print(build_backend.{hook}(sys.argv[1]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return target / answer.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def expected_files() -> set[str]:
    found = {
        *ROOT.glob("vkconv/**/*.py"),
        *ROOT.glob("vkconv/data/*.*"),
        ROOT / "vkconv" / "py.typed",
    }
    names = {path.relative_to(ROOT).as_posix() for path in found}
    converters = ROOT.glob("converters/**/*.py")
    names |= {f"vkconv/{path.relative_to(ROOT).as_posix()}" for path in converters}
    return names | {f"vkconv/glsl/{path.name}" for path in ROOT.glob("shaders/include/*.glsl")}


def test_wheel_is_for_every_python_and_platform(wheel: Path) -> None:
    assert wheel.name.startswith("vkconv-")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected_files()


def test_wheel_holds_every_shader_and_the_demo_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for shader in ROOT.glob("shaders/*.comp"):
        assert f"vkconv/_spirv/{shader.stem}_spv.py" in names
    assert "vkconv/data/demo.onnx" in names


def test_installed_wheel_loads_shaders_and_converters(installed: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "import vkconv.shaders as s, vkconv.converters; "
        "print(len([s.load(k, v) for k in s.kernels() for v in s.variants(k)]), s.__file__)"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", program, str(installed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    count, place = answer.stdout.split(maxsplit=1)
    assert int(count) > 0
    assert place.strip().startswith(str(installed))


def test_installed_wheel_compiles_the_shader_of_another_package(
    installed: Path, tmp_path: Path
) -> None:
    """And runs the operator, from files that lie elsewhere."""
    for name in ("corner_pool.py", "corner_pool.comp"):
        shutil.copy(ROOT / "examples" / "custom_operator" / name, tmp_path)
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from vkconv.cli.main import main; "
        "assert main(['compile-shader', sys.argv[2] + '/corner_pool.comp']) == 0; "
        "import corner_pool, vkconv.shaders as s; "
        "print(len(s.variants('com.example.corner_pool')), s.__file__)"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", program, str(installed), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    count, place = answer.stdout.splitlines()[-1].split(maxsplit=1)
    assert int(count) == 3
    assert place.startswith(str(installed))


def test_a_wheel_can_be_built_from_the_source_distribution(wheel: Path, tmp_path: Path) -> None:
    archive = build("build_sdist", ROOT, tmp_path)
    with tarfile.open(archive) as sdist:
        names = sdist.getnames()
        assert not [name for name in names if "/_spirv/" in name]
        for member in sdist:
            assert ".." not in Path(member.name).parts and not member.issym()
        sdist.extractall(tmp_path)
    assert not list(ROOT.glob("*.egg-info"))
    rebuilt = build("build_wheel", tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(rebuilt) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def test_import_is_fast_and_light() -> None:
    program = (
        "import json, sys, time; start = time.perf_counter(); import vkconv; "
        "print(json.dumps([time.perf_counter() - start, sorted(sys.modules)]))"
    )
    times = []
    for _ in range(3):  # the fastest: the other worker may hold the processor
        answer = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds, modules = json.loads(answer.stdout)
        times.append(seconds)
        assert not {"vulkan", "onnx", "rich", "torch"} & set(modules)
    assert min(times) < 0.3
