"""What a session knows of its layer shapes: the record's choices for its device, and, where tuning
is asked for, those found by timing."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.device.base import Device
from vkconv.errors import (
    DeviceLostError,
    DeviceTimeoutError,
    InvalidInputError,
    VkconvError,
)
from vkconv.ir import Graph
from vkconv.tuning.record import (
    VARIABLE,
    Layers,
    Target,
    Timing,
    check_replaceable,
    encode_record,
    read_record,
    record_path,
    save_record,
    target_of,
)

if TYPE_CHECKING:
    from vkconv.ops.conv_problem import Problem

#: seconds that tuning a model may take, unless said
SECONDS = 120.0


@dataclass(frozen=True)
class Progress:
    """How far tuning is: of ``shapes`` layer shapes ``done`` are; of ``candidates`` for ``key``
    ``tried`` are timed. ``timing`` is what was found when the shape is done; ``layers`` of the
    model have it."""

    done: int
    shapes: int
    key: str
    layers: int
    tried: int = 0
    candidates: int = 0
    timing: Timing | None = None


@dataclass(frozen=True)
class Tuning:
    """How to tune: ``seconds`` to take at most (a shape that is being timed is finished),
    ``again``: time shapes that the record knows too, and whom to tell how far it is."""

    seconds: float = SECONDS
    again: bool = False
    progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InvalidInputError(f"tuning takes a number of seconds, not {self.seconds}")


class TunedChoices:
    """The choices for one device. ``given``: the file to use instead of the user's own.

    A file named by the caller or by VKCONV_TUNING that holds no record is warned of, unless it is
    to be made; ``writes`` says so.
    """

    def __init__(
        self,
        device: Device,
        given: str | os.PathLike[str] | None = None,
        *,
        writes: bool = False,
    ) -> None:
        self._device = device
        self._target = target_of(device.info, device.caps)
        path = None if device.caps.host_only else record_path(given)
        self._named = _is_named(given)
        self.path: Path | None = path
        self._known = _layers(path, self._target, named=self._named, writes=writes)
        #: ``Problem.key`` to the text of a ``Choice``
        self.choices: dict[str, str] = _choices(self._known)
        self._fresh: set[str] = set()

    @property
    def digest(self) -> bytes:
        """Names the choices, for what is made with them; empty where there are none."""
        if not self.choices:
            return b""
        return hashlib.sha256(repr(sorted(self.choices.items())).encode()).digest()

    def excerpt(self, keys: Collection[str]) -> str:
        """What the record says of these layers, as a record of its own; empty without any."""
        layers = {key: timing for key, timing in self._known.items() if key in keys}
        return encode_record({self._target: layers}) if layers else ""

    def tune(self, graph: Graph, tuning: Tuning) -> None:
        """Times what the graph (with concrete shapes; a copy of it is planned) needs and the record
        does not know, and adds it to the record, also when interrupted. Raises DeviceError where
        the device fails, InvalidInputError where a named record cannot be written."""
        if self._device.caps.host_only:
            return
        asked = _asked(graph, self._device, self.choices)
        if not tuning.again:
            asked = {key: n for key, n in asked.items() if key not in self.choices}
        asked = {key: n for key, n in asked.items() if key not in self._fresh}
        found: dict[str, Timing] = {}
        try:
            for key, timing in _search(self._device, asked, tuning):
                found[key] = timing
        finally:
            self.choices |= {key: timing.choice for key, timing in found.items()}
            self._fresh |= set(found)
            self._save(found)

    def _save(self, found: Mapping[str, Timing]) -> None:
        if not found or self.path is None:
            return
        if self._named:
            save_record(self.path, self._target, found)
            return
        # without a place to keep it, what was found still serves this session
        with suppress(OSError, InvalidInputError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            save_record(self.path, self._target, found)


def known_choices(info: DeviceInfo, caps: DeviceCaps) -> dict[str, str]:
    """The user's record's choices for a device that is not opened to run: as ``TunedChoices``."""
    return _choices(_layers(record_path(), target_of(info, caps), named=_is_named(None)))


def _choices(layers: Layers) -> dict[str, str]:
    return {key: timing.choice for key, timing in layers.items()}


def _is_named(given: str | os.PathLike[str] | None) -> bool:
    """Whether somebody named the record: the caller, or VKCONV_TUNING."""
    return given is not None or bool(os.environ.get(VARIABLE, "").strip())


def _layers(path: Path | None, target: Target, *, named: bool, writes: bool = False) -> Layers:
    """What the record at ``path`` knows of a device; warns as ``TunedChoices`` says."""
    record = None if path is None else read_record(path)
    if path is not None and record is None and named:
        if writes:
            check_replaceable(path)
        else:
            warnings.warn(
                f"'{path}' is missing or no tuning record; kernels are chosen by rule",
                RuntimeWarning,
                stacklevel=4,
            )
    return dict((record or {}).get(target, {}))


class _Asking(dict[str, str]):
    """Choices that count how often each is asked for."""

    def __init__(self, known: Mapping[str, str]) -> None:
        super().__init__(known)
        self.asked: dict[str, int] = {}

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked[key] = self.asked.get(key, 0) + 1
        return super().get(key, default)


def _asked(graph: Graph, device: Device, known: Mapping[str, str]) -> dict[str, int]:
    """The layer shapes that planning a graph asks about, and the number of layers of each."""
    from vkconv.plan import ConstantStore
    from vkconv.planning import plan_graph

    asking = _Asking(known)
    plan_graph(graph.copy(), device.caps, ConstantStore(), lambda _: None, choices=asking)
    return asking.asked


def _search(
    device: Device, asked: Mapping[str, int], tuning: Tuning
) -> Iterator[tuple[str, Timing]]:
    """The shapes, costliest first, with what was found, until the time is up. Each gets a part of
    the time that is left: by the root of its cost, since compiling takes as long for small ones."""
    from vkconv.ops.conv_problem import Problem
    from vkconv.tuning.search import Search

    end = time.monotonic() + tuning.seconds
    tell = tuning.progress or (lambda _: None)
    problems = {key: Problem.from_key(key) for key in asked}
    cost = {key: (asked[key] * _products(p)) ** 0.5 + 1 for key, p in problems.items()}
    order = sorted(asked, key=lambda key: -cost[key])
    search = Search(device)
    for done, key in enumerate(order):
        now = time.monotonic()
        if now >= end:
            return
        left = sum(cost[k] for k in order[done:])
        state = Progress(done, len(order), key, asked[key])

        def tick(tried: int, candidates: int, state: Progress = state) -> None:
            tell(Progress(state.done, state.shapes, state.key, state.layers, tried, candidates))

        timing: Timing | None = None
        try:
            timing = search.find(problems[key], now + (end - now) * cost[key] / left, tick)
        except (DeviceLostError, DeviceTimeoutError):
            raise
        except VkconvError:
            pass  # too large to be timed by itself: the rules choose, as without tuning
        if timing is not None:
            yield key, timing
        tell(Progress(done + 1, len(order), key, asked[key], timing=timing))


def _products(problem: Problem) -> float:
    """Multiplications of a convolution."""
    p = problem
    taps = p.z.kernel * p.y.kernel * p.x.kernel
    return float(p.batch * p.groups * p.in_channels * p.out_channels * p.out_pixels * taps)
