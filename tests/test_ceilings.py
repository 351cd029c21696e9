"""What a device can do at most: the kernels compute what they claim; what is kept is checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vkconv
from vkconv import ceilings
from vkconv.ceilings import Ceilings, measure_ceilings
from vkconv.device import open_device
from vkconv.dispatch import Plan, Port, Storage, View


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(ceilings, "GROUPS", 16)
    monkeypatch.setattr(ceilings, "COPIED", 1 << 16)
    monkeypatch.setattr(ceilings, "LONG_ENOUGH", 1e-4)


def outputs(plan: Plan, storage: Storage, count: int) -> np.ndarray:
    """The first floats of what a plan writes."""
    port = Port("y", "float32", (count,), View(storage, (count,), "float32", "linear"))
    device = open_device("auto")
    try:
        executable = device.prepare(
            Plan(plan.steps, (), (port,), plan.arena_size, 0, (), plan.storages)
        )
        (y,) = executable.run({})
        executable.close()
    finally:
        device.close()
    return y


@pytest.mark.parametrize("four", [0, 1])
@pytest.mark.parametrize("fused", [0, 1])
def test_the_arithmetic_is_all_done(four: int, fused: int) -> None:
    groups, rounds, factor, term = 3, 2, 0.999, 0.001
    y = Storage(16 * groups * ceilings.INVOCATIONS, "sums")
    push = {"rounds": rounds, "factor": factor, "term": term}
    spec = {"local_size_x": ceilings.INVOCATIONS, "four": four, "fused": fused}
    plan = ceilings._plan("ceiling_arithmetic", {"y": y}, push, spec, groups)
    found = outputs(plan, y, y.size // 4).reshape(-1, 4)
    i = np.arange(len(found), dtype=np.float64)[:, None]
    chains = i + np.array([0, 0.25, 0.5, 0.75])
    a, b = np.float64(np.float32(factor)), np.float64(np.float32(term))
    worked = chains if four else chains[:, :2]
    for _ in range(rounds * ceilings.STEPS):
        worked = worked * a + b
    rest = 0 if four else chains[:, 2:].sum(1)
    expected = (worked.sum(1) + rest)[:, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-5)


def test_the_copy_is_one() -> None:
    size = 16 * 1000
    x, y = Storage(size, "source", np.arange(4000, dtype=np.float32)), Storage(size, "copy")
    spec = {"local_size_x": ceilings.INVOCATIONS}
    plan = ceilings._plan("ceiling_copy", {"x": x, "y": y}, {"count": 1000}, spec, 2)
    plan = Plan(plan.steps, (), plan.outputs, size, 0, (x,), (y,))
    port = Port("y", "float32", (4000,), View(y, (4000,), "float32", "linear"))
    device = open_device("auto")
    try:
        executable = device.prepare(Plan(plan.steps, (), (port,), size, 0, (x,), (y,)))
        (found,) = executable.run({})
        executable.close()
    finally:
        device.close()
    np.testing.assert_array_equal(found, np.arange(4000))


def test_it_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = vkconv.measure_ceilings()
    assert first.gflops > 0 and first.gbytes > 0
    (kept,) = (tmp_path / "ceilings").iterdir()
    assert json.loads(kept.read_text()) == {"gflops": first.gflops, "gbytes": first.gbytes}
    monkeypatch.setattr(ceilings, "_arithmetic", lambda device: 1e-3)
    monkeypatch.setattr(ceilings, "_copy", lambda device: 1e6)
    assert measure_ceilings() == first
    # a slow moment does not lower what is known to be possible
    assert measure_ceilings(again=True) == Ceilings(1e-3, 1e6)
    assert measure_ceilings() == Ceilings(first.gflops, 1e6)


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "null", '{"gflops": 1}', '{"gflops": "x", "gbytes": 1}',
             '{"gflops": -1, "gbytes": 1}', '{"gflops": NaN, "gbytes": 1}'],
)  # fmt: skip
def test_what_makes_no_sense_is_measured_again(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "_arithmetic", lambda device: 5.0)
    monkeypatch.setattr(ceilings, "_copy", lambda device: 6.0)
    assert measure_ceilings() == Ceilings(5.0, 6.0)
    (kept,) = (tmp_path / "ceilings").iterdir()
    kept.write_text(text)
    assert measure_ceilings() == Ceilings(5.0, 6.0)
    assert json.loads(kept.read_text()) == {"gflops": 5.0, "gbytes": 6.0}


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_arithmetic", lambda device: 5.0)
    monkeypatch.setattr(ceilings, "_copy", lambda device: 6.0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "file"))
    assert measure_ceilings() == Ceilings(5.0, 6.0)


def test_devices_without_ceilings() -> None:
    with pytest.raises(ValueError, match="reference device"):
        measure_ceilings("reference")
    with pytest.raises(vkconv.DeviceError):
        measure_ceilings("no such device")


def test_the_roofline() -> None:
    found = Ceilings(gflops=100.0, gbytes=10.0)
    assert found.seconds(10**9, 0) == pytest.approx(0.01)
    assert found.seconds(0, 10**9) == pytest.approx(0.1)
    assert found.seconds(10**9, 10**9) == pytest.approx(0.1)
