"""Pipelines made by several threads, and compiled at load where the driver would do it later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace

import numpy as np
import pytest

from tests.device.handmade import chain, load
from vkconv.device.vulkan import first_dispatch, pipelines
from vkconv.device.vulkan.device import Core, VulkanDevice
from vkconv.device.vulkan.memory import Memory
from vkconv.errors import DeviceError


@pytest.fixture
def lavapipe() -> Iterator[VulkanDevice]:
    device = VulkanDevice("llvmpipe", load)
    yield device
    device.close()


def run(device: VulkanDevice, length: int = 5) -> None:
    """A chain of ``length`` pipelines: each has a bias of its own."""
    x = expected = np.linspace(-1, 1, 100, dtype=np.float32)
    plan = chain(length, 100)
    steps = [replace(step, spec={"bias": 1.0 + k}) for k, step in enumerate(plan.dispatches)]
    (y,) = device.prepare(replace(plan, steps=tuple(steps))).run({"x": x})
    for k in range(length):
        expected = expected * np.float32(0.5) + np.float32(1.0 + k)
    assert np.array_equal(y, expected)


def test_every_pipeline_is_dispatched_once_at_load(
    lavapipe: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = first_dispatch._dispatch_nothing

    def counted(core, pool, fence, bound):
        seen.extend(1 for _ in bound if core is lavapipe._core)
        return original(core, pool, fence, bound)

    monkeypatch.setattr(first_dispatch, "_dispatch_nothing", counted)
    run(lavapipe)
    made = sum(len(p.pipelines) for p in lavapipe._core.pipelines._made)
    assert made and len(lavapipe._core.pipelines.dispatched) == made
    assert len(seen) >= made
    seen.clear()
    run(lavapipe)
    assert not seen, "a second executable finds them compiled"


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_twins_compile_a_share_and_close(
    lavapipe: VulkanDevice, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_dispatch, "COMPILED", -1.0)  # as if the first had taken long
    monkeypatch.setattr(first_dispatch, "usable_cores", lambda: cores)
    monkeypatch.delenv("MESA_SHADER_CACHE_DISABLE", raising=False)
    opened = set()
    original = first_dispatch._compile_apart

    def counted(core, items, room):
        opened.add(threading.current_thread().name)
        original(core, items, room)

    monkeypatch.setattr(first_dispatch, "_compile_apart", counted)
    before = set(lavapipe._core.system.open)
    run(lavapipe)
    made = sum(len(p.pipelines) for p in lavapipe._core.pipelines._made)
    assert len(opened) == min(cores - 1, first_dispatch.MOST_TWINS, made - 2)
    assert set(lavapipe._core.system.open) == before, "twins are closed"


def test_a_twin_that_fails_concerns_nobody(
    lavapipe: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_dispatch, "COMPILED", -1.0)
    monkeypatch.setattr(first_dispatch, "usable_cores", lambda: 4)

    def fails(self: Core, probe: object) -> None:
        raise DeviceError("no second device")

    monkeypatch.setattr(Core, "__init__", fails)
    run(lavapipe)


def test_no_twins_where_mesa_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESA_SHADER_CACHE_DISABLE", raising=False)
    monkeypatch.delenv("MESA_GLSL_CACHE_DISABLE", raising=False)
    assert first_dispatch._mesa_keeps_code()
    monkeypatch.setenv("MESA_SHADER_CACHE_DISABLE", "true")
    assert not first_dispatch._mesa_keeps_code()


def test_pipelines_are_made_on_threads_and_once(
    lavapipe: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = pipelines.Pipelines._create_pipeline

    def counted(self, program, key):
        made.append(threading.current_thread().name)
        return original(self, program, key)

    monkeypatch.setattr(pipelines.Pipelines, "_create_pipeline", counted)
    run(lavapipe)
    assert made and all(name.startswith("vkconv-compile") for name in made)
    assert len(made) == sum(len(p.pipelines) for p in lavapipe._core.pipelines._made)
    count = len(made)
    run(lavapipe)
    assert len(made) == count


def test_a_pipeline_that_fails_on_its_thread_is_the_load_s_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = VulkanDevice("llvmpipe", load)
    original = pipelines.Pipelines._create_pipeline

    def fails(self, program, key):
        raise DeviceError("compiling failed")

    monkeypatch.setattr(pipelines.Pipelines, "_create_pipeline", fails)
    with pytest.raises(DeviceError, match="compiling failed"):
        run(device)
    wait(f for p in device._core.pipelines._made for f in p.pending.values())
    monkeypatch.setattr(pipelines.Pipelines, "_create_pipeline", original)
    run(device)  # asked for again
    device.close()


def test_no_buffer_has_a_size_that_is_a_power_of_two(
    lavapipe: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llvmpipe would compile for it anew."""
    core = lavapipe._core
    sizes: list[int] = []
    original = core.api.struct

    def recorded(name: str, /, **fields: object) -> object:
        if name == "VkBufferCreateInfo":
            sizes.append(int(fields["size"]))
        return original(name, **fields)

    monkeypatch.setattr(core.api, "struct", recorded)
    memory = Memory(core.api, core.handle, core.probe)
    for wanted in (1, 256, 1024, 1 << 20, 3 << 20):
        memory.free(memory.create(wanted, "device", "a test"))
    assert len(sizes) == 5 and all(size & (size - 1) for size in sizes)
    assert all(size >= wanted for size, wanted in zip(sizes, (1, 256, 1024), strict=False))
