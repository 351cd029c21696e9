"""Each kernel family on a device against numpy: small cases, the whole way through passes, plan and
driver."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vkconv.device.base import Device
from vkconv.diagnosis.families import FAMILIES, family_graph
from vkconv.errors import DeviceError
from vkconv.verification import NodeCheck, verify_graph

__all__ = ["FamilyResult", "run_self_test"]


@dataclass(frozen=True)
class FamilyResult:
    """One family: its nodes, the kernels that ran, seconds, and what is wrong ("" when nothing is).

    hosts: operators for which this device has no kernel: they work, but on the host.
    is_own_fault: the failure is an error of vkconv or of its installation, in which drivers have
    no part.
    """

    family: str
    nodes: int
    kernels: tuple[str, ...]
    seconds: float
    failure: str = ""
    hosts: tuple[str, ...] = ()
    is_own_fault: bool = False

    @property
    def holds(self) -> bool:
        return not self.failure


def run_self_test(
    device: Device,
    families: Iterable[str] = tuple(FAMILIES),
    tell: Callable[[FamilyResult], None] | None = None,
) -> list[FamilyResult]:
    """Runs the families one after the other; whatever happens in one is its result."""
    found = []
    for name in families:
        found.append(_test(name, device))
        if tell is not None:
            tell(found[-1])
    return found


def _test(name: str, device: Device) -> FamilyResult:
    began = time.perf_counter()
    graph, feeds = family_graph(name)
    count = len(graph.nodes)
    try:
        checks = verify_graph(graph, feeds, device)
    except Exception as error:  # of any driver: the others are tested all the same
        own = not isinstance(error, DeviceError | MemoryError)
        failure = f"{type(error).__name__}: {error}"
        if own:
            place = traceback.extract_tb(error.__traceback__)[-1]
            failure += f" (raised in {place.name}, {Path(place.filename).name}:{place.lineno})"
        seconds = time.perf_counter() - began
        return FamilyResult(name, count, (), seconds, failure, is_own_fault=own)
    kernels = dict.fromkeys(kernel for check in checks for kernel in check.kernels)
    wrong = [check for check in checks if not check.holds]
    hosts = tuple(check.op_type for check in checks if check.where == "host")
    failure = _failure(wrong[0], len(wrong)) if wrong else ""
    if not wrong and len([c for c in checks if c.differences or c.where == "host"]) < count:
        failure = "not every node could be compared"
    return FamilyResult(name, count, tuple(kernels), time.perf_counter() - began, failure, hosts)


def _failure(check: NodeCheck, count: int) -> str:
    worst = check.worst
    assert worst is not None
    more = f", and {count - 1} more nodes" if count > 1 else ""
    return (
        f"{check.op_type} by {', '.join(check.kernels) or 'a view'}: NMSE {worst.nmse:.1e}, "
        f"{worst.worst}{more}"
    )
