"""Every compiled module: valid SPIR-V, within the limits that any Vulkan 1.1 device has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from compile_shaders import SHADERS, stale_modules
from vkconv import shaders
from vkconv.errors import BuildError

MODULES = [
    pytest.param(kernel, variant, id=f"{kernel}[{','.join('='.join(pair) for pair in variant)}]")
    for kernel in shaders.kernels()
    for variant in shaders.variants(kernel)
]
#: Vulkan 1.1, table "Required Limits"
MAX_PUSH_CONSTANTS_SIZE = 128
MAX_STORAGE_BUFFERS = 4
MAX_STORAGE_IMAGES = 4
#: variants of five storage buffers, planned only where a device offers them (what one of four gets
#: instead: tests/ops/test_fused_conv, test_deform_conv)
FIVE_BUFFERS = {("scale", "on"), ("residual", "on")}
MAX_SAMPLED_IMAGES = 16


def test_every_shader_is_compiled_and_current() -> None:
    assert stale_modules() == []
    assert shaders.kernels() == sorted(path.stem for path in SHADERS.glob("*.comp"))


@pytest.mark.parametrize(("kernel", "variant"), MODULES)
def test_spirv_is_valid(kernel: str, variant: shaders.Variant, tmp_path: Path) -> None:
    path = tmp_path / "module.spv"
    path.write_bytes(shaders.load(kernel, variant).code)
    answer = subprocess.run(
        ["spirv-val", "--target-env", "vulkan1.1", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(("kernel", "variant"), MODULES)
def test_interface(kernel: str, variant: shaders.Variant) -> None:
    module = shaders.load(kernel, variant)
    assert (module.kernel, module.variant) == (kernel, variant)
    axes = shaders.axes(kernel)
    assert [axis for axis, _ in variant] == sorted(axes)
    assert all(value in axes[axis] for axis, value in variant)
    assert module.push_size <= MAX_PUSH_CONSTANTS_SIZE
    assert module.push_size == max((f.offset + 4 * f.count for f in module.push), default=0)
    kinds = [buffer.kind for buffer in module.buffers]
    most = MAX_STORAGE_BUFFERS + bool(FIVE_BUFFERS & set(variant))
    assert kinds.count("storage_buffer") <= most
    assert kinds.count("storage_texel") <= MAX_STORAGE_IMAGES
    assert kinds.count("uniform_texel") <= MAX_SAMPLED_IMAGES
    assert any(buffer.writes for buffer in module.buffers)
    assert all(buffer.reads or buffer.writes for buffer in module.buffers)
    assert "Shader" in module.capabilities


def test_unknown_names_are_build_errors() -> None:
    with pytest.raises(BuildError, match=r"kernel 'absent' is not compiled \(there are: .*\); run"):
        shaders.load("absent")
    kernel = shaders.kernels()[0]
    with pytest.raises(BuildError, match=f"'{kernel}' has no variant 'no=such' "):
        shaders.load(kernel, (("no", "such"),))


def test_an_installation_without_shaders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BuildError, match="holds no compiled shaders; install the package"):
        shaders.kernels()
