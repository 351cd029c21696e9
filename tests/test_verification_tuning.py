"""``vkconv.verify`` with a tuning record: the plan checked is the one that a session would run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession, verify
from vkconv.cli.main import main
from vkconv.device import open_device
from vkconv.ops.conv_problem import Problem
from vkconv.ops.conv_selection import candidates
from vkconv.plan import lowering
from vkconv.tuning import Timing, read_record, save_record, target_of

#: the two layers of the net, as the record names them
FIRST = "conv 1x1g 3>8 9>7k3s1d1p0+0 8>6k3s1d1p0+0"
SECOND = "conv 1x1g 8>6 7>7k1s1d1p0+0 6>6k1s1d1p0+0"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VKCONV_TUNING", raising=False)
    proto = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")],
        {"x": [1, 3, 9, 8]}, {"y": None},
        {"w": floats(8, 3, 3, 3), "v": floats(6, 8, 1, 1)},
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    return str(path)


def record(path: Path, choices: dict[str, str]) -> None:
    """A tuning record of these choices for the device at hand."""
    device = open_device("auto")
    try:
        target = target_of(device.info, device.caps)
    finally:
        device.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_record(path, target, {k: Timing(v, 1.0, "by rule", 2.0) for k, v in choices.items()})


def other_choice(key: str, kernel: str = "") -> str:
    """A choice for a layer that the rules do not make, of ``kernel`` where one is named."""
    device = open_device("auto")
    try:
        _, *others = map(str, candidates(Problem.from_key(key), device.caps))
    finally:
        device.close()
    return next(text for text in others if text.startswith(kernel))


def dispatched(session: InferenceSession) -> list[tuple[str, Any]]:
    (stage,) = session._stages.values()
    return [(d.kernel, d.spec) for d in stage.plan.dispatches]


@pytest.mark.parametrize("by", ["default", "variable", "argument"])
def test_the_plan_checked_is_the_one_a_session_runs(
    by: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = other_choice(FIRST, "winograd")
    path = tmp_path / ("cache/tuning.json" if by == "default" else "mine.json")
    record(path, {FIRST: choice})
    given = {"tuning": path} if by == "argument" else {}
    if by == "variable":
        monkeypatch.setenv("VKCONV_TUNING", str(path))
    seen: list[list[tuple[str, Any]]] = []
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, *rest: Any, **axes: str) -> Any:
        made = real(self, kernel, *rest, **axes)
        seen[-1].append((kernel, made.spec))
        return made

    monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
    seen.append([])
    found = verify(net, **given)
    planned_by_verify = seen[-1]
    seen.append([])
    with InferenceSession(net, **given) as session:
        assert dispatched(session) == seen[-1]
    # verify plans twice: watched, and in the session whose bits it compares
    assert planned_by_verify == seen[-1] * 2
    assert found.holds, found.verdict
    assert [check.node for check in found.tuned] == ["Conv:c"]
    assert dict(found.tuned[0].tuned) == {FIRST: choice}
    assert any(kernel.startswith("winograd") for kernel in found.tuned[0].kernels)
    (layers,) = (read_record_text(found.record, tmp_path) or {}).values()
    assert {k: t.choice for k, t in layers.items()} == {FIRST: choice}


def read_record_text(text: str, folder: Path) -> Any:
    (folder / "excerpt.json").write_text(text)
    return read_record(folder / "excerpt.json")


def test_without_a_record_nothing_is_tuned(net: str) -> None:
    found = verify(net)
    assert found.holds and not found.tuned and not found.record


@pytest.mark.parametrize("switch", ["", "tuning"])
def test_what_is_no_candidate_or_switched_off_is_not_called_tuned(
    switch: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache" / "tuning.json"
    record(path, {FIRST: other_choice(FIRST) if switch else "conv2d 999x999/1"})
    monkeypatch.setenv("VKCONV_DISABLE", switch)
    found = verify(net)
    assert found.holds and not found.tuned and not found.record


def test_later_stages_are_tuned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    choice = other_choice(SECOND)
    record(tmp_path / "cache" / "tuning.json", {SECOND: choice})
    proto = model(
        [node("Reshape", "x s", "r"), node("Conv", "r v", "y")],
        {"x": [8, 42], "s": ("int64", [4])}, {"y": None}, {"v": floats(6, 8, 1, 1)},
    )  # fmt: skip
    found = verify(proto, {"x": floats(8, 42), "s": np.array([1, 8, 7, 6], np.int64)})
    assert found.holds, found.verdict
    assert [dict(check.tuned) for check in found.tuned] == [{SECOND: choice}]


# --- the commands ------------------------------------------------------------------------------


@pytest.fixture
def wrong_when_tuned(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The record's kernel of the second layer reads one block of channels only; the rules' own is
    right. Returns the choice."""
    choice = other_choice(SECOND, "conv2d_8x4")
    record(tmp_path / "cache" / "tuning.json", {SECOND: choice})
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, buffers: Any, push: Any, *rest: Any, **axes: str) -> Any:
        if kernel == "conv2d_8x4" and "in_blocks" in push:
            push = {**push, "in_blocks": 1}
        return real(self, kernel, buffers, push, *rest, **axes)

    monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
    return choice


def test_a_wrong_tuned_kernel_is_called_tuned_and_its_record_goes_along(
    net: str,
    wrong_when_tuned: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "report"
    assert main(["verify", net, "--bisect", str(folder), "--json", str(tmp_path / "f.json")]) == 1
    said = capsys.readouterr().out
    result = next(line for line in said.splitlines() if line.startswith("result"))
    assert f"chosen by tuning: {wrong_when_tuned})" in result
    assert "VKCONV_DISABLE=tuning" in result
    assert "1 node by a kernel that the tuning record chose" in said and "(tuned)" in said
    nodes = json.loads((tmp_path / "f.json").read_text())["nodes"]
    assert [n["tuned"] for n in nodes if n["node"].startswith("Conv")] == [[], [wrong_when_tuned]]
    # elsewhere, without the user's own record
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "other"))
    monkeypatch.chdir(folder)
    notes = (folder / "README.md").read_text()
    command = next(line for line in notes.splitlines() if line.startswith("vkconv verify"))
    assert main(command.split()[1:]) == 1
    assert main(["verify", "model.onnx", "--inputs", "inputs.npz"]) == 0
    capsys.readouterr()


def test_a_record_that_is_not_there_is_warned_of(net: str) -> None:
    with pytest.warns(RuntimeWarning, match=r"none\.json' is missing"):
        assert verify(net, tuning="none.json").holds
