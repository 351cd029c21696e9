"""The fastest candidate for a layer shape: all are timed briefly, the best few again at length.

A candidate counts only if it computes what the rules' choice computes on random numbers. The winner
replaces that choice only where it is faster by more than what times scatter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from vkconv.device.base import Device
from vkconv.errors import DeviceLostError, DeviceTimeoutError, VkconvError
from vkconv.ir import Array
from vkconv.ops.conv_problem import Choice, Problem
from vkconv.ops.conv_selection import candidates
from vkconv.tuning.record import Timing
from vkconv.tuning.trial import Layer, Trial, believes_timestamps

#: seconds one submission of the first round should take; candidates may be slower than the rules'
ROUND_SECONDS = 0.4
#: seconds of the last round
FINAL_SECONDS = 0.6
#: candidates and repetitions of one trial
MOST_TOGETHER, FIRST_REPETITIONS, MOST_REPETITIONS = 8, 3, 24
#: results of a trial that are held at once
MOST_BYTES = 256 << 20
FINALISTS = 3
#: normalised mean squared error that a candidate may differ by (float32, docs/decisions/0009)
LARGEST_ERROR = 1e-6
#: how much less time than the rules' choice a winner must take
LEAST_GAIN = 0.03

#: called between trials with the candidates timed so far and how many there are
Tick = Callable[[int, int], None]


class Search:
    """Times layer shapes on a device; whether its timestamps are believed is found out once."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._timestamps: bool | None = None

    def find(self, problem: Problem, deadline: float, tick: Tick) -> Timing:
        """The winner for a shape. On ``deadline`` (of time.monotonic) the candidates that were not
        reached are left out; the rules' choice is always timed. Raises DeviceError where the device
        fails, VkconvError where it cannot run the rules' choice."""
        found = candidates(problem, self._device.caps)
        layer, rule = Layer(problem), found[0]
        if self._timestamps is None:
            self._timestamps = believes_timestamps(self._device, layer, rule)
        tick(0, len(found))
        expected, first = self._trial(layer, [rule], FIRST_REPETITIONS)[rule]
        times = {rule: first}
        together, repetitions = self._sizes(layer, float(first.min()))
        reached = 1
        while reached < len(found) and time.monotonic() < deadline:
            part = found[reached : reached + together]
            for choice, (output, seconds) in self._time(layer, part, repetitions).items():
                if is_close(output, expected):
                    times[choice] = seconds
            reached += len(part)
            tick(reached, len(found))
        best = sorted(times, key=lambda c: float(times[c].min()))[:FINALISTS]
        times = self._final(layer, list(dict.fromkeys([rule, *best])), times)
        winner = min(times, key=lambda c: float(np.median(times[c])))
        if not is_faster(times[winner], times[rule]):
            winner = rule
        least = {c: float(times[c].min()) * 1e3 for c in (winner, rule)}
        return Timing(str(winner), least[winner], str(rule), least[rule])

    def _sizes(self, layer: Layer, base: float) -> tuple[int, int]:
        """How many candidates to time together, and how often."""
        repetitions = FIRST_REPETITIONS if base * FIRST_REPETITIONS < ROUND_SECONDS else 1
        together = int(ROUND_SECONDS / (base * repetitions))
        together = min(together, MOST_TOGETHER, MOST_BYTES // layer.y_bytes)
        return max(1, together), repetitions

    def _final(
        self, layer: Layer, choices: Sequence[Choice], known: dict[Choice, Array]
    ) -> dict[Choice, Array]:
        """Times at length of the rules' choice, which comes first, and of the best."""
        if len(choices) == 1:
            return {choices[0]: known[choices[0]]}
        turn = sum(float(known[c].min()) for c in choices)
        repetitions = min(max(int(FINAL_SECONDS / turn), 3), MOST_REPETITIONS)
        timed = {c: t for c, (_, t) in self._time(layer, choices, repetitions).items()}
        return timed if choices[0] in timed else {choices[0]: known[choices[0]]}

    def _time(
        self, layer: Layer, choices: Sequence[Choice], repetitions: int
    ) -> dict[Choice, tuple[Array, Array]]:
        """Output and seconds (of each repetition) of every choice that the device can run."""
        if self._timestamps or len(choices) == 1:
            try:
                return self._trial(layer, choices, repetitions)
            except (DeviceLostError, DeviceTimeoutError):
                raise
            except VkconvError:
                if len(choices) == 1:
                    return {}
        found = {}
        for choice in choices:
            found.update(self._time(layer, [choice], repetitions))
        return found

    def _trial(
        self, layer: Layer, choices: Sequence[Choice], repetitions: int
    ) -> dict[Choice, tuple[Array, Array]]:
        with Trial(self._device, layer, choices, repetitions) as trial:
            times, outputs = trial.by_timestamps() if self._timestamps else trial.by_wall_clock()
        return {c: (y, t) for c, t, y in zip(choices, times.T, outputs, strict=True)}


def is_faster(found: Array, rule: Array) -> bool:
    """Whether both the least and the middle of some times are clearly below those of the rule."""
    factor = 1 - LEAST_GAIN
    return bool(found.min() <= factor * rule.min() and np.median(found) <= factor * np.median(rule))


def is_close(found: Array, expected: Array) -> bool:
    """Whether the normalised mean squared error is small; never with an infinity or NaN."""
    if not np.isfinite(found).all():
        return False
    error = found.astype(np.float64) - expected
    power = float(np.sum(np.square(expected, dtype=np.float64)))
    return float(np.sum(error * error)) <= LARGEST_ERROR * max(power, 1e-30)
