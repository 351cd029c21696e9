"""Measured steps as a per-node table and as a trace that Chrome and Perfetto open."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from vkconv.ceilings import Ceilings
from vkconv.device.base import StepTime
from vkconv.dispatch import Dispatch, Plan
from vkconv.files import write_bytes
from vkconv.ir import Array


@dataclass(frozen=True)
class ProfileRow:
    """One node of a profiled run.

    seconds:  of all its steps; share: of all measured steps.
    flops:    floating-point operations as the operator defines them, whatever the kernel does:
              Winograd does fewer. 0 where that says nothing.
    bytes:    what its kernels are given to read and to write, weights and its own intermediate
              tensors included; 0 for steps on the host.
    detail:   variant, specialization constants and grid of its costliest kernel.
    of_ceiling: the least time the device could take for that much work (``Ceilings.seconds``), as a
              share of the time taken; None where no ceilings are known, or nothing was counted.
    """

    node: str
    kernel: str
    seconds: float
    share: float
    flops: int = 0
    bytes: int = 0
    detail: str = ""
    track: str = "gpu"
    of_ceiling: float | None = None

    @property
    def gflops(self) -> float:
        """10^9 operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds > 0 else 0.0

    @property
    def gbytes(self) -> float:
        """10^9 bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds > 0 else 0.0


@dataclass
class Profile:
    """One profiled run. ``wall`` is the whole run in seconds, copies and host work included.

    ``ceilings`` are what the rows are compared with: ``vkconv.measure_ceilings(device)``.
    """

    device: str
    steps: Sequence[StepTime]
    wall: float
    outputs: list[Array] = field(repr=False, default_factory=list)
    ceilings: Ceilings | None = None

    def rows(self) -> list[ProfileRow]:
        """One row a node, the costliest first."""
        steps: dict[str, list[StepTime]] = {}
        for step in self.steps:
            steps.setdefault(step.node, []).append(step)
        total = sum(step.duration for step in self.steps) or 1.0
        rows = [self._row(node, own, total) for node, own in steps.items()]
        return sorted(rows, key=lambda row: -row.seconds)

    def seconds_on(self, track: str) -> float:
        """The time of all steps on the "gpu" or the "host"."""
        return sum(step.duration for step in self.steps if step.track == track)

    def write_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the Trace Event Format: complete events in microseconds, a track per processor.

        The file appears whole or not at all. Raises InvalidInputError when it can't be written.
        """
        tracks = {"gpu": 1, "host": 2}
        events: list[dict[str, object]] = [_named("process_name", 1, 0, f"vkconv, {self.device}")]
        events += [
            _named("thread_name", 1, tid, f"{name} ({self.device})") for name, tid in tracks.items()
        ]
        alone = _nodes_of_one_step(self.steps)
        for step in self.steps:
            details: dict[str, object] = {"kernel": step.kernel}
            if step.detail:
                details["detail"] = step.detail
            if step.bytes:
                details |= {"bytes": step.bytes, "GB/s": _rate(step.bytes, step.duration)}
            if step.flops:
                details["flops of the node"] = step.flops
                if step.node in alone:
                    details["GFLOP/s"] = _rate(step.flops, step.duration)
            events.append(
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": tracks[step.track],
                    "name": step.node,
                    "cat": step.kernel,
                    "ts": step.start * 1e6,
                    "dur": step.duration * 1e6,
                    "args": details,
                }
            )
        trace = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
        write_bytes(str(path), trace.encode(), "the trace")

    def _row(self, node: str, steps: Sequence[StepTime], total: float) -> ProfileRow:
        seconds = sum(step.duration for step in steps)
        flops, bytes_ = sum(s.flops for s in steps), sum(s.bytes for s in steps)
        costliest = max(steps, key=lambda step: step.duration)
        of_ceiling = None
        if self.ceilings is not None and costliest.track == "gpu" and flops + bytes_ and seconds:
            of_ceiling = self.ceilings.seconds(flops, bytes_) / seconds
        return ProfileRow(
            node=node,
            kernel=", ".join(dict.fromkeys(step.kernel for step in steps)),
            seconds=seconds,
            share=seconds / total,
            flops=flops,
            bytes=bytes_,
            detail=costliest.detail,
            track=costliest.track,
            of_ceiling=of_ceiling,
        )


def with_work(times: Sequence[StepTime], plan: Plan) -> list[StepTime]:
    """The times of a plan's steps with what each step does.

    Dispatches are timed in the order of the plan.
    """
    dispatches = iter(plan.dispatches)
    counted: set[str] = set()
    result = []
    for step in times:
        # a part of a plan without dispatches of its own is timed as copies alone
        dispatch = next(dispatches, None) if step.track == "gpu" else None
        flops = 0 if step.node in counted else plan.flops.get(step.node, 0)
        counted.add(step.node)
        if dispatch is None:
            result.append(replace(step, flops=flops))
        else:
            moved, detail = _bytes(dispatch), _detail(dispatch)
            result.append(replace(step, flops=flops, bytes=moved, detail=detail))
    return result


def _bytes(dispatch: Dispatch) -> int:
    """Of all that is bound; what is bound twice under two names counts once."""
    ranges = {(id(r.storage), r.offset, r.size): r for r in dispatch.buffers.values()}
    return sum(r.size * (r.reads + r.writes) for r in ranges.values())


def _detail(dispatch: Dispatch) -> str:
    """Variant, constants that are not 0, workgroups: ``storage_texel tile_x=8 10x5x1``."""
    variant = [value for _, value in dispatch.variant]
    constants = [f"{name}={value}" for name, value in dispatch.spec.items() if value]
    return " ".join([*variant, *constants, "x".join(str(n) for n in dispatch.grid)])


def _nodes_of_one_step(steps: Iterable[StepTime]) -> set[str]:
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.node] = counts.get(step.node, 0) + 1
    return {node for node, count in counts.items() if count == 1}


def _rate(amount: int, seconds: float) -> float:
    """In 10^9 a second."""
    return round(amount / seconds / 1e9, 3) if seconds > 0 else 0.0


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, object]:
    """An event that names a row of the trace."""
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}
