"""What the times of all blocks come to: percentiles and ratios of a model, and of several models.

Plain numbers in plain tables, so that a result is JSON as it stands: seconds, bytes.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vkconv.errors import InvalidInputError
from vkconv.ir import Array

__all__ = [
    "ORACLE",
    "TITLES",
    "Block",
    "Result",
    "Row",
    "geometric_mean",
    "machine",
    "nmse",
    "ratio_of",
    "summarise",
]

#: the reply of one process, and the figures of one runtime
Block = dict[str, Any]
Row = dict[str, Any]
FORMAT = 1
#: its outputs are what the others' are compared with
ORACLE = "onnxruntime"
#: worst NMSE that counts as the same result: in fp32, and where a runtime may use half precision
ALLOWED = {"ncnn-defaults": 1e-2}
ALLOWED_FP32 = 1e-6
TITLES = {
    "vkconv": "vkconv",
    "torch": "PyTorch, CPU",
    "onnxruntime": "onnxruntime, CPU",
    "ncnn": "ncnn, Vulkan, fp32",
    "ncnn-defaults": "ncnn, Vulkan, its defaults",
    "opencv": "OpenCV DNN, Vulkan",
}


@dataclass(frozen=True)
class Result:
    """A model on several runtimes.

    rows:  by runtime. Measured: p50, p90, p99, least (seconds of a run), runs, cold and warm
           (load), cold_first and warm_first (to the first output), peak (bytes), nmse, device,
           versions; ratio, ratios (its time by vkconv's: of all runs, of each round); "wrong" where
           its outputs differ. Not measured: "reason". vkconv has "memory" and "profile" besides.
    """

    title: str
    shapes: Mapping[str, Sequence[int]]
    machine: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Mapping[str, Row]
    name: str = ""
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, table: Any) -> Result:
        """Raises InvalidInputError where ``as_json`` did not make it."""
        try:
            if table["format"] != FORMAT:
                raise ValueError
            return cls(**{key: value for key, value in table.items() if key != "format"})
        except (KeyError, TypeError, ValueError):
            raise InvalidInputError("these are no results of this version of vkconv") from None

    @property
    def ceilings(self) -> Mapping[str, float] | None:
        """Of the device: gflops, gbytes."""
        found: Mapping[str, float] | None = self.profile.get("ceilings")
        return found

    @property
    def profile(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.rows["vkconv"].get("profile", {})
        return found


def summarise(blocks: Mapping[str, Sequence[Block]], chosen: Sequence[str]) -> dict[str, Row]:
    """The rows of vkconv and of the runtimes chosen."""
    return {name: _row(name, blocks) for name in ("vkconv", *chosen)}


def _row(name: str, blocks: Mapping[str, Sequence[Block]]) -> Row:
    own, base = blocks[name], blocks["vkconv"]
    reason = next((reply["reason"] for reply in own if "reason" in reply), None)
    if reason is not None:
        return {"reason": reason}
    times = sorted(t for reply in own for t in reply["times"])
    warm = [*own[1:], *own[-1].get("again", ())]
    row: Row = {
        "p50": statistics.median(times),
        "p90": percentile(times, 0.9),
        "p99": percentile(times, 0.99),
        "least": times[0],
        "runs": len(times),
        "cold": own[0]["load"],
        "warm": min((reply["load"] for reply in warm), default=None),
        "cold_first": own[0]["first"],
        "warm_first": min((reply["first"] for reply in warm), default=None),
        "peak": max(reply["peak"] for reply in own),
        "nmse": own[0].get("nmse"),
        "device": own[0]["device"],
        "versions": own[0]["versions"],
        **{key: own[-1][key] for key in ("memory", "profile") if key in own[-1]},
    }
    if name != "vkconv" and not any("reason" in reply for reply in base):
        medians = [
            [statistics.median(reply["times"]) for reply in replies] for replies in (own, base)
        ]
        row["ratios"] = [a / b for a, b in zip(*medians, strict=False)]
        row["ratio"] = row["p50"] / statistics.median(t for reply in base for t in reply["times"])
    error = row["nmse"]
    if error is not None and not error <= ALLOWED.get(name, ALLOWED_FP32):
        row["wrong"] = f"its outputs differ from {ORACLE}'s (NMSE {error:.1e})"
    return row


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted numbers that at least this share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def nmse(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest NMSE of the outputs; infinite when they do not fit each other at all."""
    if len(actual) != len(expected):
        return math.inf
    return max((_nmse(a, e) for a, e in zip(actual, expected, strict=True)), default=0.0)


def _nmse(actual: Array, expected: Array) -> float:
    if actual.size != expected.size or not np.isfinite(actual).all():
        return math.inf
    error = actual.reshape(-1).astype(np.float64) - expected.reshape(-1)
    power = float(np.sum(np.square(expected, dtype=np.float64)))
    return float(np.sum(error * error)) / max(power, float(np.finfo(np.float32).tiny))


# --- of several models ---------------------------------------------------------------------------


def ratio_of(result: Result, runtime: str) -> float | None:
    """How many times vkconv's time the runtime takes; None where it is not measured, or wrong."""
    row = result.rows.get(runtime, {})
    return None if "wrong" in row else row.get("ratio")


def geometric_mean(numbers: Iterable[float | None]) -> float | None:
    """Of those that are there; None where none is."""
    known = [math.log(number) for number in numbers if number]
    return math.exp(statistics.fmean(known)) if known else None


def machine() -> dict[str, str]:
    """What the figures depend on, without the machine's own name."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x.split(":")[1] for x in info.read_text().splitlines() if "model name" in x]
        cpu = models[0].strip() if models else cpu
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores{load} at the start",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
