"""What a device could do at most: products and sums a second, bytes moved a second.

Measured by two kernels that do nothing else, so that a profile can say what share of it a node
reaches. A measurement takes about a second and is kept in the cache folder, by device and driver.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vkconv.capabilities import DeviceChoice, DeviceInfo
from vkconv.device import open_device
from vkconv.device.base import Device
from vkconv.dispatch import BufferRange, Dispatch, Number, Plan, Port, PushValue, Storage, View
from vkconv.errors import VkconvError
from vkconv.files import cache_folder, write_bytes

__all__ = ["Ceilings", "measure_ceilings"]

#: raise it with every change to how it is measured
FORMAT = 2
#: bytes read, and bytes written, by a copy: more than the caches of most devices hold
COPIED = 64 << 20
INVOCATIONS = 64
#: workgroups of the arithmetic: every processor of a large device has some
GROUPS = 4096
#: a measurement is long enough when it takes this many seconds (below, starting workgroups is most
#: of it on CPU drivers), and is made so often
LONG_ENOUGH, TURNS = 0.03, 12
#: independent chains that hide the latency of one operation, and whether it is one (fma)
FORMS = tuple((chains, fused) for fused in (False, True) for chains in (2, 4))
STEPS = 32
_LARGEST_GRID = 65535


@dataclass(frozen=True)
class Ceilings:
    """Of a device: products and sums in 10^9 a second (one of each counts as two), and what a copy
    reads and writes, in 10^9 bytes a second."""

    gflops: float
    gbytes: float

    def seconds(self, flops: int, bytes_: int) -> float:
        """The least time for this much work (the roofline, Williams et al. 2009)."""
        return max(flops / self.gflops, bytes_ / self.gbytes) * 1e-9


def measure_ceilings(device: DeviceChoice = "auto", *, again: bool = False) -> Ceilings:
    """The ceilings of a device, named as for ``InferenceSession``: those kept, unless ``again``.

    Raises DeviceError where there is no such device. "reference" has none: ValueError.
    """
    opened = open_device(device)
    try:
        if opened.info.kind == "reference":
            raise ValueError("the reference device runs no kernels and has no ceilings")
        path = _path(opened.info)
        kept = _read(path)
        if kept is not None and not again:
            return kept
        found = Ceilings(_arithmetic(opened), _copy(opened))
        # whatever else was running then: more has been seen, so more is possible
        best = found if kept is None else _larger(found, kept)
        _keep(path, best)
        return found
    finally:
        opened.close()


def _arithmetic(device: Device) -> float:
    """The best of all forms, in 10^9 operations a second."""
    return max(_rate(device, chains, fused) for chains, fused in FORMS)


def _rate(device: Device, chains: int, fused: bool) -> float:
    groups = min(GROUPS, device.caps.max_workgroup_count[0])
    y = Storage(16 * groups * INVOCATIONS, "sums")

    def seconds(rounds: int, turns: int) -> float:
        push: dict[str, PushValue] = {"rounds": rounds, "factor": 0.999, "term": 0.001}
        spec = {"local_size_x": INVOCATIONS, "four": int(chains == 4), "fused": int(fused)}
        plan = _plan("ceiling_arithmetic", {"y": y}, push, spec, groups)
        return _seconds(device, plan, turns)

    first = seconds(1, 1)
    rounds = min(1 << 16, max(1, int(LONG_ENOUGH / first)))
    return 8e-9 * chains * STEPS * rounds * groups * INVOCATIONS / seconds(rounds, TURNS)


def _copy(device: Device) -> float:
    size = min(COPIED, device.caps.max_storage_buffer_range)
    count = size // 16
    groups = min(_LARGEST_GRID, device.caps.max_workgroup_count[0], -(-count // INVOCATIONS))
    plan = _plan(
        "ceiling_copy",
        {"x": Storage(size, "source"), "y": Storage(size, "copy", offset=size)},
        {"count": count},
        {"local_size_x": INVOCATIONS},
        groups,
    )
    return 2e-9 * size / _seconds(device, plan, TURNS)


def _plan(
    kernel: str,
    storages: Mapping[str, Storage],
    push: Mapping[str, PushValue],
    spec: Mapping[str, Number],
    groups: int,
) -> Plan:
    """One dispatch; its first four elements come out. ``y`` is written, all else is read."""
    buffers = {
        name: BufferRange(s, 0, s.size, reads=name != "y", writes=name == "y")
        for name, s in storages.items()
    }
    dispatch = Dispatch(kernel, kernel, (), buffers, push, spec, (groups, 1, 1))
    result = Port("y", "float32", (4,), View(storages["y"], (4,), "float32", "linear"))
    return Plan(
        steps=(dispatch,),
        inputs=(),
        outputs=(result,),
        arena_size=sum(s.size for s in storages.values()),
        arena_lower_bound=0,
        constants=(),
        storages=tuple(storages.values()),
    )


def _seconds(device: Device, plan: Plan, turns: int) -> float:
    """The least time of some runs, the first (which compiles) left out."""
    executable = device.prepare(plan)
    try:
        executable.run({})
        runs = (executable.profile({})[1] for _ in range(turns))
        return max(1e-9, min(sum(step.duration for step in steps) for steps in runs))
    finally:
        executable.close()


# --- kept between runs ---------------------------------------------------------------------------


def _path(info: DeviceInfo) -> Path | None:
    about = f"{FORMAT}\0{info.name}\0{info.driver}\0{info.api_version}".encode()
    with contextlib.suppress(OSError, RuntimeError):
        return cache_folder() / "ceilings" / f"{hashlib.sha256(about).hexdigest()[:32]}.json"
    return None


def _read(path: Path | None) -> Ceilings | None:
    """None where nothing is kept, or nothing that makes sense."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        if path is not None:
            table = json.loads(path.read_text())
            found = Ceilings(float(table["gflops"]), float(table["gbytes"]))
            if all(0 < value < 1e9 for value in (found.gflops, found.gbytes)):
                return found
    return None


def _larger(a: Ceilings, b: Ceilings) -> Ceilings:
    return Ceilings(max(a.gflops, b.gflops), max(a.gbytes, b.gbytes))


def _keep(path: Path | None, found: Ceilings) -> None:
    with contextlib.suppress(OSError, VkconvError):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(str(path), json.dumps(asdict(found)).encode(), "the ceilings")
