"""Memory of the process behind a CPU driver's buffers."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.device.handmade import chain, load
from vkconv.device.vulkan import heap, memory
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.device.vulkan.heap import HUGE_PAGE, give_back, prefer_huge_pages

LINUX = sys.platform == "linux"


def mapped(size: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def advised(array: np.ndarray) -> bool:
    """Whether the system notes the advice for the middle of ``array`` (man 5 proc, smaps)."""
    middle, inside = array.ctypes.data + array.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first:
            low, high = (int(n, 16) for n in first.split("-"))
            inside = low <= middle < high
        elif inside and first == "VmFlags:":
            return "hg" in line.split()
    raise AssertionError("the array lies in no mapping")


@pytest.mark.parametrize("size", [HUGE_PAGE * 3, HUGE_PAGE * 3 + 4096, HUGE_PAGE * 5 - 512])
def test_only_whole_pages_within_are_asked_for(size: int) -> None:
    array = mapped(size)
    asked = prefer_huge_pages(array)
    assert asked % HUGE_PAGE == 0 and asked <= size
    if LINUX and asked:  # a kernel without huge pages refuses
        assert size - asked < 2 * HUGE_PAGE
        assert advised(array)
    array[:] = 7
    assert array.sum(dtype=np.int64) == 7 * size


def test_small_ones_are_left_alone() -> None:
    array = mapped(HUGE_PAGE // 2)
    assert prefer_huge_pages(array) == 0
    assert not LINUX or not advised(array)


def test_a_system_without_the_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_from_c_library", lambda *_: None)
    assert prefer_huge_pages(mapped(HUGE_PAGE * 4)) == 0
    give_back()


def test_given_back_where_the_process_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the least that it has held since the last time."""
    held = iter([50, 30, 35, 41, 20, 31, 32, 22, 5, 16, 6])  # MB; behind a trim it is asked again
    trims: list[int] = []

    def resident() -> int:
        trims.append(0)
        return next(held) << 20

    def trim(_: int) -> int:
        trims[-1] = 1
        return 1

    monkeypatch.setattr(heap, "_held", 0)
    monkeypatch.setattr(heap, "_resident", resident)
    monkeypatch.setattr(heap, "_from_c_library", lambda *_: trim)
    for _ in range(7):
        give_back(11 << 20)
    assert trims == [1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0]


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_what_the_process_holds() -> None:
    before = heap._resident()
    with mmap.mmap(-1, 32 << 20) as fresh:  # an array may lie where another was freed
        np.frombuffer(fresh, np.uint8)[:] = 1
        assert 24 << 20 < heap._resident() - before < 64 << 20


@pytest.mark.parametrize(("disabled", "asks"), [("", True), ("huge_pages", False)])
def test_a_driver_on_the_cpu(disabled: str, asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    monkeypatch.setattr(memory, "prefer_huge_pages", lambda a: sizes.append(a.nbytes))
    device = VulkanDevice("auto", load)
    try:
        device.prepare(chain(2, 4)).run({"x": np.ones(4, "f")})
        assert bool(sizes) is (asks and device._core.probe.info.kind == "cpu")
    finally:
        device.close()
