"""A device for each test, with a pipeline cache of its own. No driver is a failure, not a skip."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from tests.device.handmade import load
from vkconv.device.vulkan import probe
from vkconv.device.vulkan.device import VulkanDevice

#: the device as it is, and with what smaller devices lack
#: ("uncached" is the mapped memory of an AMD APU: quick to write, slow to read)
IMITATIONS = ("", "unified", "timestamps,unified", "uncached")


_memory_types = probe._memory_types


def _without_cached_local_memory(api, physical):
    cached = api.c.VK_MEMORY_PROPERTY_HOST_CACHED_BIT
    rows = _memory_types(api, physical)
    return tuple(dataclasses.replace(row, flags=row.flags & ~cached) for row in rows)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VKCONV_DISABLE", raising=False)
    monkeypatch.delenv("VKCONV_DEVICE", raising=False)


@pytest.fixture
def device() -> Iterator[VulkanDevice]:
    opened = VulkanDevice("auto", load)
    yield opened
    opened.close()


@pytest.fixture(params=IMITATIONS, ids=lambda d: d or "all features")
def any_device(request, monkeypatch) -> Iterator[VulkanDevice]:
    if request.param == "uncached":
        monkeypatch.setattr(probe, "_memory_types", _without_cached_local_memory)
    else:
        monkeypatch.setenv("VKCONV_DISABLE", request.param)
    opened = VulkanDevice("auto", load)
    yield opened
    opened.close()
