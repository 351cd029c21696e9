"""Candidates for one convolution, timed on a device: the same numbers through every one of them.

A trial is a plan of its own: repetition after repetition, in each candidate after candidate, so
that whatever else disturbs the device disturbs all of them. Times come from GPU timestamps, from
the wall clock where a driver has none or where they do not agree with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vkconv.device.base import Device
from vkconv.dispatch import ELEMENT_BYTES, Dispatch, Plan, Port, Storage, View, c4_dims
from vkconv.ir import Array, TensorType, Value, constant
from vkconv.ops.conv_epilogue import Epilogue
from vkconv.ops.conv_kernels import lower_conv
from vkconv.ops.conv_problem import Choice, Problem
from vkconv.ops.lowering import Tensor
from vkconv.ops.packing import pack_c4
from vkconv.plan import ConstantStore
from vkconv.plan.arena import Lifetime, lower_bound, place_storages
from vkconv.plan.lowering import PlanLowering

#: runs of a trial on the wall clock
WALL_RUNS = 3
#: timestamps are believed where they say this share of what the wall clock says
BELIEVABLE = (0.5, 1.5)
#: seconds of work by which the two clocks are compared
COMPARED_SECONDS = 0.01
MOST_REPETITIONS = 256


class Layer:
    """A convolution with random numbers: x uniform in [-1, 1), weights scaled by their number."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        #: an operator with computed weights is timed with given ones: packing them is not at choice
        self._constant = replace(problem, constant=True)
        numbers = np.random.default_rng(0)
        axes = (problem.y, problem.x) if problem.is_flat else problem.axes
        self._axes = axes
        p, taps = problem, tuple(a.kernel for a in axes)
        self.x_shape = (p.batch, p.groups * p.in_channels, *(a.size for a in axes))
        self.y_shape = (p.batch, p.groups * p.out_channels, *(a.out for a in axes))
        rows = (p.groups * p.in_channels, p.out_channels)
        if not p.transposed:
            rows = (p.groups * p.out_channels, p.in_channels)
        fan_in = max(1, p.in_channels * int(np.prod(taps)))
        weight = numbers.standard_normal((*rows, *taps), np.float32) / np.float32(fan_in**0.5)
        self._weight = Tensor(constant("weight", weight), None)
        self.x = pack_c4(numbers.random(self.x_shape, np.float32) * 2 - 1).reshape(-1)
        self.store = ConstantStore()

    @property
    def y_bytes(self) -> int:
        return int(np.prod(c4_dims(self.y_shape))) * 4 * ELEMENT_BYTES

    def lower(self, lowering: PlanLowering, choice: Choice, x: View, y: View) -> list[Dispatch]:
        """The dispatches of the convolution as ``choice`` has it."""
        lowering.choices = {self._constant.key: str(choice)}
        tensors = [
            Tensor(Value(name, TensorType("float32", view.shape)), view)
            for name, view in (("x", x), ("y", y))
        ]
        p = self.problem
        dispatches = lower_conv(
            lowering,
            tensors[0],
            self._weight,
            None,
            tensors[1],
            self._axes,
            p.groups,
            Epilogue(),
            transposed=p.transposed,
        )
        return [d for d in dispatches if all(d.grid)]


class Trial:
    """Some choices for a layer on a device, prepared to be timed. Close it."""

    def __init__(
        self, device: Device, layer: Layer, choices: Sequence[Choice], repetitions: int
    ) -> None:
        self._layer, self._repetitions = layer, repetitions
        self._count = len(choices)
        plan, self._owners = _trial_plan(device, layer, choices, repetitions)
        self._executable = device.prepare(plan)

    def by_timestamps(self) -> tuple[Array, list[Array]]:
        """Seconds (repetition, choice), and what each choice computes. The first of several
        repetitions warms up and is left out."""
        outputs, steps = self._executable.profile({"x": self._layer.x})
        spent = np.zeros((self._repetitions, self._count))
        for (repetition, choice), step in zip(self._owners, steps, strict=True):
            spent[repetition, choice] += step.duration
        return spent[min(1, self._repetitions - 1) :], outputs

    def by_wall_clock(self) -> tuple[Array, list[Array]]:
        """As ``by_timestamps`` for the only choice of the trial: each run's mean over its
        repetitions."""
        feeds = {"x": self._layer.x}
        outputs = self._executable.run(feeds)
        spent = []
        for _ in range(WALL_RUNS):
            began = time.perf_counter()
            self._executable.run(feeds, {})
            spent.append([(time.perf_counter() - began) / self._repetitions])
        return np.array(spent), outputs

    def seconds_on_both_clocks(self) -> tuple[float, float]:
        """Of all repetitions: by timestamps, and on the wall with what surrounds them."""
        best = (float("inf"), float("inf"))
        for _ in range(WALL_RUNS):
            began = time.perf_counter()
            _, steps = self._executable.profile({"x": self._layer.x})
            wall = time.perf_counter() - began
            best = min(best, (wall, sum(s.duration for s in steps)))
        return best[1], best[0]

    def close(self) -> None:
        self._executable.close()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def believes_timestamps(device: Device, layer: Layer, choice: Choice) -> bool:
    """Whether a device has timestamps, and more work takes as much longer by them as on the wall
    clock."""
    if "timestamps" not in device.info.features:
        return False
    with Trial(device, layer, [choice], 1) as one:
        few, wall_of_few = one.seconds_on_both_clocks()
    repetitions = 8
    while True:
        with Trial(device, layer, [choice], repetitions) as many:
            ticks, wall = many.seconds_on_both_clocks()
        if wall - wall_of_few > COMPARED_SECONDS or repetitions >= MOST_REPETITIONS:
            break
        repetitions *= 4
    ratio = (ticks - few) / max(wall - wall_of_few, 1e-9)
    return BELIEVABLE[0] <= ratio <= BELIEVABLE[1]


def _trial_plan(
    device: Device, layer: Layer, choices: Sequence[Choice], repetitions: int
) -> tuple[Plan, list[tuple[int, int]]]:
    """The plan, and (repetition, choice) of each of its dispatches. Each waits for the one before
    it, so that no two share the device."""
    lowering = PlanLowering(device.caps, layer.store)
    x = _c4_view("x", layer.x_shape)
    results = [_c4_view(f"y{i}", layer.y_shape) for i in range(len(choices))]
    steps: list[Dispatch] = []
    owners: list[tuple[int, int]] = []
    for repetition in range(repetitions):
        for i, choice in enumerate(choices):
            lowering.node = f"{choice}"
            for dispatch in layer.lower(lowering, choice, x, results[i]):
                steps.append(replace(dispatch, barrier=True))
                owners.append((repetition, i))
    lives = {id(v.storage): Lifetime(v.storage, -1, len(steps)) for v in (x, *results)}
    constants: dict[int, Storage] = {}
    for index, step in enumerate(steps):
        for bound in step.buffers.values():
            storage = bound.storage
            if storage.is_constant:
                constants[id(storage)] = storage
            else:
                life = lives.setdefault(id(storage), Lifetime(storage, index, index))
                life.last = max(life.last, index)
    lifetimes = list(lives.values())
    plan = Plan(
        steps=tuple(steps),
        inputs=(_port("x", x),),
        outputs=tuple(_port(f"y{i}", y) for i, y in enumerate(results)),
        arena_size=place_storages(lifetimes),
        arena_lower_bound=lower_bound(lifetimes),
        constants=tuple(constants.values()),
        storages=tuple(life.storage for life in lifetimes),
    )
    return plan, owners


def _c4_view(name: str, shape: tuple[int, ...]) -> View:
    n, blocks, height, width = c4_dims(shape)
    stride = blocks * height * width * 4
    storage = Storage(max(n * stride, 1) * ELEMENT_BYTES, name)
    return View(storage, shape, "float32", "c4", 0, stride)


def _port(name: str, view: View) -> Port:
    """The elements of a C4 tensor as they lie."""
    shape = (view.span,)
    return Port(name, "float32", shape, View(view.storage, shape, "float32", "linear"))
