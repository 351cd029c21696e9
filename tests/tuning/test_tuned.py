"""Sessions and their tuning record: found once, used from then on, never timed unasked."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_models import floats, model, node
from tests.tuning.conftest import KEYS
from vkconv import InferenceSession, InvalidInputError, compile_model
from vkconv.ops.conv_problem import Problem
from vkconv.ops.conv_selection import candidates
from vkconv.tuning import Progress, Timing, Tuning, read_record, save_record, target_of
from vkconv.tuning import search as searching
from vkconv.tuning.search import Search

X = floats(1, 8, 6, 5)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shapes that were searched; the winner is one with fixed tiles, which
    the rules do not choose here."""
    keys: list[str] = []

    def find(search: Search, problem: Problem, deadline: float, tick: Any) -> Timing:
        keys.append(problem.key)
        found = candidates(problem, search._device.caps)
        tick(len(found), len(found))
        winner = next(c for c in found[1:] if c.kernel == "conv2d_8x4")
        return Timing(str(winner), 1.0, str(found[0]), 2.0)

    monkeypatch.setattr(Search, "find", find)
    return keys


def chosen(session: InferenceSession) -> list[tuple[str, int]]:
    """Kernel and group size of the session's convolutions."""
    (stage,) = session._stages.values()
    return [
        (d.kernel, int(d.spec["local_size_x"]))
        for d in stage.plan.dispatches
        if d.kernel.startswith("conv2d")
    ]


def test_untuned_loads_time_nothing(
    net: bytes, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a load without tune=True must not time anything")

    monkeypatch.setattr(searching.Trial, "__init__", refuse)
    monkeypatch.setattr(Search, "find", refuse)
    with InferenceSession(net) as session:
        session.run(None, {"x": X})
    assert not record.exists()
    with pytest.raises(AssertionError, match="must not time"):
        InferenceSession(net, tune=True)


def test_tuned_for_real(net: bytes, record: Path) -> None:
    steps: list[Progress] = []
    with (
        InferenceSession(net) as plain,
        InferenceSession(net, tune=Tuning(30, progress=steps.append)) as tuned,
    ):
        (expected,), (y,) = plain.run(None, {"x": X}), tuned.run(None, {"x": X})
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    (layers,) = (read_record(record) or {}).values()
    assert set(layers) == set(KEYS)
    done = {s.key: s for s in steps if s.timing is not None}
    assert [done[k].layers for k in KEYS] == [2, 1]
    assert all(t.ms > 0 and t.ms <= t.untuned_ms for t in layers.values())
    assert steps[-1].done == steps[-1].shapes == 2
    assert {s.tried == s.candidates for s in steps if s.candidates} == {True, False}


def test_found_once_and_used_from_then_on(net: bytes, record: Path, timed: list[str]) -> None:
    with InferenceSession(net) as session:
        before = chosen(session)
    with InferenceSession(net, tune=True) as session:
        after = chosen(session)
        (y,) = session.run(None, {"x": X})
    assert sorted(timed) == sorted(KEYS) and after != before
    with InferenceSession(net) as session:
        assert chosen(session) == after
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], y)
    with InferenceSession(net, tune=True) as session:
        assert chosen(session) == after
    assert len(timed) == 2, "the record knew these shapes"
    with InferenceSession(net, tune=Tuning(again=True)):
        assert len(timed) == 4


def test_records_travel(
    net: bytes, record: Path, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared.json"
    with InferenceSession(net) as session:
        before = chosen(session)
    with InferenceSession(net, tune=True, tuning=shared) as session:
        after = chosen(session)
    assert after != before and shared.exists() and not record.exists()
    with InferenceSession(net) as session:
        assert chosen(session) == before
    with InferenceSession(net, tuning=shared) as session:
        assert chosen(session) == after
    monkeypatch.setenv("VKCONV_TUNING", str(shared))
    with InferenceSession(net) as session:
        assert chosen(session) == after
    plan = tmp_path / "net.vkplan"
    compile_model(net, str(plan))
    monkeypatch.setenv("VKCONV_DISABLE", "tuning")
    with InferenceSession(net) as session, InferenceSession(plan) as compiled:
        assert chosen(session) == before and chosen(compiled) == after


def test_a_record_cannot_choose_what_is_no_candidate(net: bytes, record: Path) -> None:
    with InferenceSession(net) as session:
        device = session._open_device()
        before, target = chosen(session), target_of(device.info, device.caps)
    record.parent.mkdir(exist_ok=True)
    for choice in ("conv2d_1x1 4096x64 lanes=8", "no such kernel", "", "x" * 1000):
        save_record(record, target, {key: Timing(choice, 1.0, "", 1.0) for key in KEYS})
        with InferenceSession(net) as session:
            assert chosen(session) == before
            session.run(None, {"x": X})


def test_another_driver_or_version_is_a_miss(net: bytes, record: Path, timed: list[str]) -> None:
    with InferenceSession(net) as session:
        before = chosen(session)
    with InferenceSession(net, tune=True):
        pass
    for field in ("driver", "vkconv", "device", "features"):
        text = json.loads(record.read_text())
        text["devices"][0][field] += "x"
        record.write_text(json.dumps(text))
        with InferenceSession(net) as session:
            assert chosen(session) == before


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": "vkconv tuning record"', b"\xff" * 99])
def test_a_damaged_record_is_a_miss(
    net: bytes, record: Path, timed: list[str], damage: bytes
) -> None:
    record.parent.mkdir(exist_ok=True)
    record.write_bytes(damage)
    with warnings.catch_warnings(), InferenceSession(net) as session:
        warnings.simplefilter("error")
        session.run(None, {"x": X})
    with InferenceSession(net, tune=True):
        assert set(next(iter((read_record(record) or {}).values()))) == set(KEYS)


def test_a_named_record_that_is_none_is_said(net: bytes, tmp_path: Path) -> None:
    with (
        pytest.warns(RuntimeWarning, match=r"none\.json.*chosen by rule"),
        InferenceSession(net, tuning=tmp_path / "none.json"),
    ):
        pass
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    with pytest.raises(InvalidInputError, match="no tuning record"):
        InferenceSession(net, tune=True, tuning=other)
    with pytest.raises(InvalidInputError, match="cannot write"):
        InferenceSession(net, tune=Tuning(5), tuning=tmp_path / "none" / "tuning.json")
    assert other.read_text() == "mine"


def test_an_interruption_keeps_what_was_found(net: bytes, record: Path, timed: list[str]) -> None:
    def interrupt(step: Progress) -> None:
        if step.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InferenceSession(net, tune=Tuning(progress=interrupt))
    (layers,) = (read_record(record) or {}).values()
    assert list(layers) == timed == [KEYS[0]]


def test_time_bounds_what_is_tuned(net: bytes, record: Path, timed: list[str]) -> None:
    with InferenceSession(net, tune=Tuning(1e-9)) as session:
        session.run(None, {"x": X})
    assert not timed and not record.exists()
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidInputError, match="seconds"):
            Tuning(wrong)


def test_dynamic_shapes_are_tuned_when_they_are_met(record: Path, timed: list[str]) -> None:
    made = model(
        [node("Conv", "x w", "y")], {"x": [1, 8, "h", 5]}, {"y": None}, {"w": floats(8, 8, 1, 1)}
    )
    with InferenceSession(made, tune=True) as session:
        assert not timed
        for height in (6, 7, 6):
            session.run(None, {"x": floats(1, 8, height, 5)})
    assert timed == [KEYS[0], KEYS[0].replace("6>6", "7>7")]


def test_plans_have_their_kernels(net: bytes, tmp_path: Path) -> None:
    plan = tmp_path / "net.vkplan"
    compile_model(net, str(plan))
    with pytest.raises(InvalidInputError, match="tune the ONNX model"):
        InferenceSession(plan, tune=True)


def test_the_reference_device_is_left_alone(net: bytes, record: Path, timed: list[str]) -> None:
    with InferenceSession(net, device="reference", tune=True) as session:
        session.run(None, {"x": X})
    assert not timed and not record.exists()
