"""Measured steps as a per-node table and as a trace that Chrome and Perfetto open."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from vkconv.device.base import StepTime
from vkconv.files import write_bytes
from vkconv.ir import Array


@dataclass(frozen=True)
class ProfileRow:
    """Time of one node: seconds, and its share of all measured steps."""

    node: str
    kernel: str
    seconds: float
    share: float


@dataclass
class Profile:
    """One profiled run. ``wall`` is the whole run in seconds, copies and host work included."""

    device: str
    steps: Sequence[StepTime]
    wall: float
    outputs: list[Array] = field(repr=False, default_factory=list)

    def rows(self) -> list[ProfileRow]:
        """One row a node, the costliest first."""
        seconds: dict[str, float] = {}
        kernels: dict[str, list[str]] = {}
        for step in self.steps:
            seconds[step.node] = seconds.get(step.node, 0.0) + step.duration
            names = kernels.setdefault(step.node, [])
            if step.kernel not in names:
                names.append(step.kernel)
        total = sum(seconds.values()) or 1.0
        ordered = sorted(seconds, key=lambda node: -seconds[node])
        return [
            ProfileRow(n, ", ".join(kernels[n]), seconds[n], seconds[n] / total) for n in ordered
        ]

    def write_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the Trace Event Format: complete events in microseconds, a track per processor.

        The file appears whole or not at all. Raises InvalidInputError when it can't be written.
        """
        tracks = {"gpu": 1, "host": 2}
        events: list[dict[str, object]] = [
            {
                "ph": "M",
                "pid": 1,
                "tid": tid,
                "name": "thread_name",
                "args": {"name": f"{name} ({self.device})"},
            }
            for name, tid in tracks.items()
        ]
        for step in self.steps:
            events.append(
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": tracks[step.track],
                    "name": step.node,
                    "cat": step.kernel,
                    "ts": step.start * 1e6,
                    "dur": step.duration * 1e6,
                    "args": {"kernel": step.kernel},
                }
            )
        trace = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
        write_bytes(str(path), trace.encode(), "the trace")
