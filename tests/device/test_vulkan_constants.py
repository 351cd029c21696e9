"""Weights: shared, sub-allocated, freed, staged; and plans too large for the device."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, chain, chain_expected
from vkconv.device.vulkan import constants
from vkconv.device.vulkan.constants import Block
from vkconv.device.vulkan.memory import Buffer
from vkconv.dispatch import Plan, Storage
from vkconv.errors import DeviceError, OutOfDeviceMemoryError


def sum_with(weights: list[Storage], count: int) -> Plan:
    """x + reversed(w) for every weight."""
    maker = PlanMaker(count)
    x, a, b = maker.view("x"), maker.view("a"), maker.view("b")
    maker.input("x", x)
    source = x
    for k, weight in enumerate(weights):
        target = a if k % 2 == 0 else b
        maker.dispatch("add_reversed", {"a": source, "b": weight, "y": target})
        source = target
    maker.output("y", source)
    maker.constants = list(weights)
    return maker.plan()


def weights_of(sizes: list[int]) -> list[Storage]:
    arrays = [np.arange(n, dtype=np.float32) * (k + 1) for k, n in enumerate(sizes)]
    return [Storage(a.nbytes, f"w{k}", a) for k, a in enumerate(arrays)]


def expected(x: np.ndarray, weights: list[Storage]) -> np.ndarray:
    for w in weights:
        assert w.data is not None
        x = x + w.data[: x.size][::-1]
    return x


def test_executables_share_constants_and_the_last_one_frees_them(any_device):
    pool = any_device._core.constants
    weights = weights_of([300, 1, 77, 5000])
    x, longer = np.ones(1, np.float32), np.ones(1, np.float32) * 2
    first = any_device.prepare(sum_with(weights, 1))
    resident = pool.resident_bytes
    assert 0 < resident < 32 << 10  # a small model gets a small block
    second = any_device.prepare(sum_with(weights[:2], 1))
    assert pool.resident_bytes == resident
    assert np.array_equal(first.run({"x": x})[0], expected(x, weights))
    first.close()
    assert np.array_equal(second.run({"x": longer})[0], expected(longer, weights[:2]))
    assert pool.resident_bytes == resident
    second.close()
    assert pool.resident_bytes == 0
    again = any_device.prepare(sum_with(weights, 1))
    assert np.array_equal(again.run({"x": x})[0], expected(x, weights))


def test_a_forgotten_executable_gives_its_memory_back(device):
    weights = weights_of([1000])
    plan = sum_with(weights, 10)
    device.prepare(plan)
    gc.collect()
    device.prepare(plan).close()
    assert device._core.constants.resident_bytes == 0
    assert not device._core.resources


def test_constants_larger_than_a_block_and_than_the_staging(any_device, monkeypatch):
    monkeypatch.setattr(constants, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(constants, "STAGING_BYTES", 3 << 10)
    weights = weights_of([900, 100, 5000, 513, 700])
    executable = any_device.prepare(sum_with(weights, 100))
    x = np.ones(100, np.float32)
    assert np.array_equal(executable.run({"x": x})[0], expected(x, weights))
    executable.close()
    assert any_device._core.constants.resident_bytes == 0


def test_a_block_joins_its_free_ranges():
    block = Block(Buffer(None, None, 1024, None, False), [(0, 1024)])
    places = [block.take(256) for _ in range(4)]
    assert places == [0, 256, 512, 768] and block.take(256) is None
    for place in (512, 0, 768, 256):
        assert not block.is_empty
        block.give(place, 256)
    assert block.is_empty


def test_a_constant_larger_than_its_storage_is_refused(device):
    storage = Storage(8, "w", np.ones(3, np.float32))
    with pytest.raises(DeviceError, match="'w' holds 12 bytes in a storage of 8"):
        device.prepare(sum_with([storage], 2))
    assert device._core.constants.resident_bytes == 0


@pytest.mark.parametrize("size", [1 << 40, 1 << 62])
def test_an_arena_beyond_the_device(any_device, size):
    maker = PlanMaker()
    maker.storages = [Storage(size, "giant"), Storage(4, "small")]
    maker.arena = size
    with pytest.raises(
        OutOfDeviceMemoryError, match=rf"{size} bytes.*'giant' {size} bytes"
    ) as caught:
        any_device.prepare(maker.plan())
    assert caught.value.requested == size and "\n" not in str(caught.value)
    x = np.ones(1000, np.float32)
    (y,) = any_device.prepare(chain(2)).run({"x": x})
    assert np.array_equal(y, chain_expected(x, 2))


def test_a_driver_that_refuses_an_allocation(device, monkeypatch):
    """The driver's own answer, behind our check of the heap's size."""

    class Refusing:
        def __init__(self, lib):
            self._lib = lib

        def __getattr__(self, name):
            if name == "vkAllocateMemory":
                return lambda *_: device._core.api.c.VK_ERROR_OUT_OF_DEVICE_MEMORY
            return getattr(self._lib, name)

    with monkeypatch.context() as patch:
        patch.setattr(device._core.api, "lib", Refusing(device._core.api.lib))
        with pytest.raises(OutOfDeviceMemoryError, match="VK_ERROR_OUT_OF_DEVICE_MEMORY") as caught:
            device.prepare(sum_with(weights_of([1000]), 10))
        assert caught.value.requested == 4096
    assert np.all(device.prepare(chain(1, 4)).run({"x": np.ones(4, "f")})[0] == 1.5)


def test_the_number_of_allocations_is_respected(device, monkeypatch):
    memory = device._core.memory
    monkeypatch.setattr(memory, "_count", device._core.probe.max_allocation_count)
    with pytest.raises(OutOfDeviceMemoryError, match="maxMemoryAllocationCount"):
        device.prepare(chain(1))
