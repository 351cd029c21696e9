"""Trials on the device, and which candidate wins: with the device's times, and with given ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests.ops.test_conv_selection import LAVAPIPE, axis, square
from vkconv.device import Device, open_device
from vkconv.errors import DeviceLostError, OutOfDeviceMemoryError
from vkconv.ir import Array
from vkconv.ops.conv import convolve
from vkconv.ops.conv_problem import Choice, Problem
from vkconv.ops.conv_selection import candidates, select_kernel
from vkconv.tuning import search as searching
from vkconv.tuning.search import Search, is_close, is_faster
from vkconv.tuning.trial import Layer, Trial, believes_timestamps

SMALL = square(8, 8, 7, 1)
PROBLEMS = [
    SMALL,
    square(16, 24, 9, 3),
    square(1, 1, 8, 3, 2, groups=12),
    square(6, 4, 7, 3, groups=3),
    square(8, 8, 5, 3, 2, transposed=True),
    Problem(2, 1, 5, 6, axis(5, 3, 1, 1), axis(6, 3), z=axis(3, 2), constant=False),
]


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    opened = open_device()
    yield opened
    opened.close()


def unpacked(c4: Array, shape: Sequence[int]) -> Array:
    """(N, C, rest) of C4 elements."""
    blocks = c4.reshape(shape[0], -(-shape[1] // 4), -1, 4)
    return blocks.transpose(0, 1, 3, 2).reshape(shape[0], -1, blocks.shape[2])[:, : shape[1]]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.key)
def test_every_candidate_of_a_trial_computes_the_convolution(
    device: Device, problem: Problem
) -> None:
    layer = Layer(problem)
    choices = candidates(problem, device.caps)
    step = max(1, len(choices) // 3)
    choices = choices[::step][:4]
    with Trial(device, layer, choices, 3) as trial:
        times, outputs = trial.by_timestamps()
    assert times.shape == (2, len(choices)) and np.all(times > 0)
    found = [unpacked(y, layer.y_shape).astype(np.float64) for y in outputs]
    for y in found:
        assert np.ptp(y) > 0.1 and np.sum((y - found[0]) ** 2) <= 1e-6 * np.sum(y**2)
    if not problem.transposed:
        x = unpacked(layer.x, layer.x_shape).reshape(layer.x_shape).astype(np.float64)
        axes = (problem.y, problem.x) if problem.is_flat else problem.axes
        weight = layer._weight.array
        assert weight is not None
        expected = convolve(x, weight.astype(np.float64), None, axes, problem.groups)
        error = found[0] - expected.reshape(found[0].shape)
        assert np.sum(error**2) <= 1e-6 * np.sum(expected**2)


def test_both_clocks_measure_the_same_work(device: Device) -> None:
    layer = Layer(square(32, 32, 24, 1))
    rule = select_kernel(layer.problem, device.caps)
    assert believes_timestamps(device, layer, rule)
    with Trial(device, layer, [rule], 16) as trial:
        by_clock, first = trial.by_wall_clock()
        by_ticks, second = trial.by_timestamps()
    assert by_clock.shape == (3, 1) and by_ticks.shape == (15, 1)
    assert 0.1 < by_clock.min() / by_ticks.min() < 10
    np.testing.assert_array_equal(first[0], second[0])


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_timestamps_that_lie_are_not_believed(
    device: Device, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Trial.seconds_on_both_clocks

    def lying(trial: Trial) -> tuple[float, float]:
        ticks, wall = honest(trial)
        return ticks * scale, wall

    monkeypatch.setattr(Trial, "seconds_on_both_clocks", lying)
    layer = Layer(SMALL)
    assert not believes_timestamps(device, layer, select_kernel(SMALL, device.caps))


def test_without_timestamps_the_wall_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "timestamps")
    monkeypatch.setattr(Trial, "by_timestamps", None)
    opened = open_device()
    try:
        timing = Search(opened).find(SMALL, time.monotonic() + 1, lambda *_: None)
    finally:
        opened.close()
    assert timing.ms > 0 and timing.untuned == str(select_kernel(SMALL, opened.caps))


class FakeSearch(Search):
    """Times and outputs by table: ``speeds`` are seconds by a candidate's position; those in
    ``wrong`` compute something else, those in ``failing`` cannot be prepared."""

    def __init__(
        self, speeds: Sequence[float], wrong: Sequence[int] = (), failing: Sequence[int] = ()
    ) -> None:
        self._device = type("Fake", (), {"caps": LAVAPIPE})()
        self._timestamps = True
        self.all = candidates(SMALL, LAVAPIPE)
        self.speeds = dict(zip(self.all, speeds, strict=False))
        self.wrong, self.failing = ([self.all[i] for i in row] for row in (wrong, failing))
        self.tried: list[Choice] = []
        self.error: Exception = OutOfDeviceMemoryError("no room")

    def _trial(
        self, layer: Layer, choices: Sequence[Choice], repetitions: int
    ) -> dict[Choice, tuple[Array, Array]]:
        self.tried += choices
        if any(c in self.failing for c in choices):
            raise self.error
        good, bad = np.arange(9.0), np.arange(9.0) + 0.1
        return {
            c: (bad if c in self.wrong else good, np.full(repetitions, self.speeds.get(c, 1.0)))
            for c in choices
        }


def found(search: FakeSearch, seconds: float = 60.0) -> int:
    """The position of the winner."""
    timing = search.find(SMALL, time.monotonic() + seconds, lambda *_: None)
    assert timing.untuned == str(search.all[0])
    return [str(c) for c in search.all].index(timing.choice)


def test_the_fastest_wins_unless_it_is_wrong_or_fails() -> None:
    speeds = [0.010, 0.009, 0.002, 0.001, 0.008]
    assert found(FakeSearch(speeds)) == 3
    assert found(FakeSearch(speeds, wrong=[3])) == 2
    assert found(FakeSearch(speeds, wrong=[3], failing=[2])) == 4
    assert found(FakeSearch(speeds, wrong=[1, 2, 3, 4])) == 0
    assert len(set(FakeSearch([]).all)) > 8, "the table is shorter than the candidates"


def test_a_small_gain_leaves_the_choice_of_the_rules() -> None:
    assert found(FakeSearch([0.0100, 0.0098])) == 0
    assert found(FakeSearch([0.0100, 0.0096])) == 1


def test_one_candidate_that_fails_does_not_take_its_neighbours_along() -> None:
    search = FakeSearch([0.01, 0.02, 0.005], failing=[1])
    assert found(search) == 2
    assert set(search.tried) == set(search.all)


def test_a_lost_device_ends_the_search() -> None:
    search = FakeSearch([0.01], failing=[1])
    search.error = DeviceLostError("gone")
    with pytest.raises(DeviceLostError):
        found(search)


def test_when_time_is_up_the_rest_is_left_out() -> None:
    search = FakeSearch([0.01, 0.001])
    assert found(search, -1.0) == 0
    assert set(search.tried) == {search.all[0]}
    ticks: list[tuple[int, int]] = []
    FakeSearch([0.01]).find(SMALL, time.monotonic() + 60, lambda *t: ticks.append(t))
    assert ticks[0] == (0, len(search.all)) and ticks[-1] == (len(search.all), len(search.all))


def test_slow_layers_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    search = FakeSearch([1.0])
    assert search._sizes(Layer(SMALL), 1.0) == (1, 1)
    together, repetitions = search._sizes(Layer(SMALL), 1e-5)
    assert together == searching.MOST_TOGETHER and repetitions == searching.FIRST_REPETITIONS
    monkeypatch.setattr(searching, "MOST_BYTES", Layer(SMALL).y_bytes * 2)
    assert search._sizes(Layer(SMALL), 1e-5)[0] == 2


def test_what_is_close_and_what_is_faster() -> None:
    y = np.arange(8, dtype=np.float32)
    assert is_close(y * np.float32(1.0001), y) and is_close(y * 0, y * 0)
    assert not is_close(y * np.float32(1.01), y) and not is_close(y + 1, y * 0)
    assert not is_close(np.full(8, np.nan, np.float32), y)
    assert is_faster(np.array([1.0, 2, 3]), np.array([2.0, 3, 4]))
    assert not is_faster(np.array([1.0, 3, 4]), np.array([2.0, 3, 4]))  # by luck, once
    assert not is_faster(np.array([2.0, 2, 2]), np.array([2.0, 3, 4]))
