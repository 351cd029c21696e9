"""Profiles: what each step does, the table by node, and the trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import vkconv
from tests.small_models import floats, model, node
from vkconv.ceilings import Ceilings
from vkconv.device.base import StepTime
from vkconv.dispatch import BufferRange, Dispatch, Plan, Storage
from vkconv.profiler import Profile, ProfileRow, with_work


def net() -> onnx.ModelProto:
    """A 3x3 convolution of 8 x 16 channels at 10 x 10, and a sum that no pass can fold into it."""
    return model(
        [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("ReduceSum", "c", "y", keepdims=0)],
        {"x": [1, 8, 10, 10]}, {"y": None}, {"w": floats(16, 8, 3, 3)},
    )  # fmt: skip


def dispatch(name: str, *ranges: BufferRange) -> Dispatch:
    buffers = {f"b{i}": r for i, r in enumerate(ranges)}
    spec = {"TILE": 4, "MASKED": 0}
    return Dispatch(name, f"kernel_{name}", (("access", "ssbo"),), buffers, {}, spec, (5, 2, 1))


def plan(*steps: Dispatch, flops: dict[str, int]) -> Plan:
    return Plan(steps, (), (), 0, 0, (), (), flops)


def test_steps_learn_what_they_do() -> None:
    storage = Storage(4096, "s")
    read, written = (
        BufferRange(storage, 0, 100, True, False),
        BufferRange(storage, 256, 30, False, True),
    )
    both = BufferRange(storage, 512, 7, True, True)
    first, second = dispatch("a", read, read, written), dispatch("a", both)
    times = [
        StepTime("a", "kernel_a", "gpu", 0.0, 1.0),
        StepTime("h", "NonZero", "host", 1.0, 1.0),
        StepTime("a", "kernel_a", "gpu", 2.0, 1.0),
    ]
    found = with_work(times, plan(first, second, flops={"a": 1000, "h": 5}))
    # the same range under two names counts once, one that is updated twice
    assert [(s.flops, s.bytes) for s in found] == [(1000, 130), (5, 0), (0, 14)]
    assert found[0].detail == "ssbo TILE=4 5x2x1" and found[1].detail == ""
    assert [(s.node, s.start, s.duration) for s in found] == [
        (s.node, s.start, s.duration) for s in times
    ]


def test_rows_sum_up_nodes() -> None:
    steps = [
        StepTime("a", "one", "gpu", 0.0, 0.1, flops=4 * 10**8, bytes=10**8, detail="tile 1"),
        StepTime("b", "Op", "host", 0.1, 0.5, flops=10**9),
        StepTime("a", "two", "gpu", 0.6, 0.3, bytes=10**8, detail="tile 2"),
        StepTime("c", "empty", "gpu", 0.9, 0.0),
        StepTime("a", "two", "gpu", 0.9, 0.1, detail="tile 3"),
    ]
    profile = Profile("device", steps, 1.2, ceilings=Ceilings(gflops=8.0, gbytes=1.0))
    b, a, c = sorted(profile.rows(), key=lambda row: row.node != "b")
    assert (a.node, a.kernel, a.detail, a.track) == ("a", "one, two", "tile 2", "gpu")
    assert (a.seconds, a.share) == (pytest.approx(0.5), pytest.approx(0.5))
    assert a.gflops == pytest.approx(0.8) and a.gbytes == pytest.approx(0.4)
    # 0.05 s of arithmetic, 0.2 s of memory: of the two, memory is the limit
    assert a.of_ceiling == pytest.approx(0.4)
    assert (b.track, b.of_ceiling, b.bytes, b.gflops) == ("host", None, 0, pytest.approx(2.0))
    assert (c.gflops, c.gbytes, c.of_ceiling) == (0.0, 0.0, None)
    assert profile.seconds_on("gpu") == pytest.approx(0.5)
    assert profile.seconds_on("host") == pytest.approx(0.5)
    assert {row.of_ceiling for row in Profile("device", steps, 1.2).rows()} == {None}


@pytest.mark.parametrize("device", ["auto", "reference"])
def test_a_convolution_is_counted(device: str) -> None:
    with vkconv.InferenceSession(net(), device=device) as session:
        rows = session.profile({"x": floats(1, 8, 10, 10)}).rows()
    row = next(row for row in rows if row.node.startswith("Conv"))
    assert row.flops == 2 * 16 * 10 * 10 * 8 * 9
    if device == "auto":
        least = 4 * (8 * 100 + 16 * 100 + 16 * 8 * 9)
        assert row.track == "gpu" and least <= row.bytes <= 8 * least
        assert row.detail.split()[-1].count("x") == 2
    else:
        assert row.track == "host" and row.bytes == 0


def test_the_plan_file_keeps_the_count(tmp_path: Path) -> None:
    path = tmp_path / "net.vkplan"
    vkconv.compile_model(net(), str(path))
    x = {"x": floats(1, 8, 10, 10)}
    with vkconv.InferenceSession(str(path)) as session:
        compiled = {row.node: row.flops for row in session.profile(x).rows()}
    with vkconv.InferenceSession(net()) as session:
        assert compiled == {row.node: row.flops for row in session.profile(x).rows()}
    assert max(compiled.values()) == 2 * 16 * 10 * 10 * 8 * 9


def test_the_trace_tells_what_a_step_does(tmp_path: Path) -> None:
    steps = [
        StepTime("a", "one", "gpu", 0.0, 0.002, flops=10**7, bytes=10**6, detail="tile"),
        StepTime("w", "two", "gpu", 0.002, 0.001, flops=10**7),
        StepTime("w", "two", "gpu", 0.003, 0.001),
        StepTime("h", "NonZero", "host", 0.004, 0.0),
    ]
    Profile("GPU", steps, 0.1).write_chrome_trace(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = [e["args"]["name"] for e in events if e["ph"] == "M"]
    assert names == ["vkconv, GPU", "gpu (GPU)", "host (GPU)"]
    one, first, second, host = (e for e in events if e["ph"] == "X")
    assert one["args"] == {
        "kernel": "one", "detail": "tile", "bytes": 10**6, "GB/s": 0.5,
        "flops of the node": 10**7, "GFLOP/s": 5.0,
    }  # fmt: skip
    # a node of several steps has no rate of its own in one of them
    assert first["args"] == {"kernel": "two", "flops of the node": 10**7}
    assert second["args"] == {"kernel": "two"}
    assert (host["tid"], host["dur"], one["tid"], one["dur"]) == (2, 0.0, 1, 2000.0)


def test_a_row_without_time() -> None:
    assert ProfileRow("n", "k", 0.0, 0.0, 10, 10).gflops == 0.0
    assert np.isfinite(ProfileRow("n", "k", 0.0, 0.0, 10, 10).gbytes)
