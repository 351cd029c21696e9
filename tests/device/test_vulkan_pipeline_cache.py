"""The pipeline cache on disk: written, read, and never the cause of an error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.device.handmade import chain, chain_expected, load
from vkconv.device.vulkan import pipeline_cache
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.files import cache_folder


def use() -> None:
    """Opens a device, runs a plan, closes it."""
    device = VulkanDevice("auto", load)
    x = np.ones(100, np.float32)
    (y,) = device.prepare(chain(3, 100)).run({"x": x})
    assert np.array_equal(y, chain_expected(x, 3))
    device.close()


def cache_file() -> Path:
    (path,) = cache_folder().glob("*.pipelines")
    return path


@pytest.fixture
def data() -> bytearray:
    """What the driver gave to be kept."""
    use()
    found = bytearray(pipeline_cache.read(cache_file()))
    if len(found) == 20:
        pytest.skip("lavapipe of Mesa 26.2 gives 20 bytes of its header of 32: never read again")
    return found


def test_is_written_and_read_back(data):
    assert len(data) >= 32  # at least the header that the spec prescribes
    assert int.from_bytes(data[4:8], "little") == 1  # VK_PIPELINE_CACHE_HEADER_VERSION_ONE
    use()
    assert pipeline_cache.read(cache_file())


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:-1],
        lambda b: b[: len(b) // 2],
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b"garbage" * 1000,
        lambda b: b + b"more",
    ],
    ids=["empty", "shorter", "half", "one bit", "garbage", "longer"],
)
def test_a_damaged_file_is_a_miss(damage):
    use()
    path = cache_file()
    path.write_bytes(damage(path.read_bytes()))
    assert pipeline_cache.read(path) == b""
    use()
    assert pipeline_cache.read(cache_file())


@pytest.fixture
def given(monkeypatch) -> list[bytes]:
    """What drivers are given from here on."""
    given: list[bytes] = []
    create = pipeline_cache.PipelineCache._create

    def watched(self, data: bytes) -> object:
        given.append(data)
        return create(self, data)

    monkeypatch.setattr(pipeline_cache.PipelineCache, "_create", watched)
    return given


@pytest.mark.parametrize("place", [4, 8, 12, 16, 31])
def test_data_of_another_device_never_reaches_the_driver(data, given, place):
    """Whole files of ours: the header's version, vendor, device or UUID is another's."""
    data[place] ^= 1
    assert pipeline_cache.write(cache_file(), bytes(data))
    use()
    assert given == [b""]
    assert pipeline_cache.read(cache_file())[place] == data[place] ^ 1
    use()
    assert given[1] != b""


@pytest.mark.parametrize("length", [1, 4, 20, 31])
def test_part_of_a_header_never_reaches_the_driver(given, length):
    use()
    kept = pipeline_cache.read(cache_file())[:length]
    assert pipeline_cache.write(cache_file(), kept)
    use()
    assert given == [b"", b""]


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(blocked / "cache"))
    use()
    assert blocked.read_text().startswith("a file")


def test_a_full_disk_leaves_the_old_file(monkeypatch):
    use()
    before = cache_file().read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert not pipeline_cache.write(cache_file(), b"new")
    assert cache_file().read_bytes() == before
    assert len(list(cache_folder().iterdir())) == 1


def test_size_is_capped_and_old_files_go(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline_cache, "MAX_BYTES", 1000)
    old, new = tmp_path / "old.pipelines", tmp_path / "new.pipelines"
    assert not pipeline_cache.write(new, b"x" * 1000) and not new.exists()
    assert pipeline_cache.write(old, b"x" * 500)
    assert pipeline_cache.write(new, b"y" * 500)
    assert new.exists() and not old.exists()
    new.write_bytes(new.read_bytes() * 2)
    assert pipeline_cache.read(new) == b""


def test_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("VKCONV_DISABLE", "pipeline_cache")
    use()
    assert not cache_folder().exists()
