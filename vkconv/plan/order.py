"""The order of dispatches: those that need not wait for each other come together.

Models list a branch after the other, so that each step of a branch waits while the others could
run. Here steps are dealt in waves: one barrier, then whatever depends on earlier waves only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vkconv.dispatch import Dispatch, Step, Storage
from vkconv.plan.barriers import conflict
from vkconv.plan.lowering import Access

#: how far a wave looks ahead: results made long before they are read take memory all the while
WINDOW = 48

Accesses = Mapping[int, tuple[Access, ...]]


def in_waves(steps: Sequence[Step], accesses: Accesses) -> list[list[Step]]:
    """The same steps in an order that keeps every dependence, wave by wave. Nothing crosses a host
    step, which is a wave of its own."""
    waves: list[list[Step]] = []
    run: list[Dispatch] = []
    for step in steps:
        if isinstance(step, Dispatch):
            run.append(step)
        else:
            waves += [*_dealt(run, accesses), [step]]
            run = []
    return waves + _dealt(run, accesses)


def _dealt(run: Sequence[Dispatch], accesses: Accesses) -> list[list[Step]]:
    waits_for = _dependences([accesses[id(step)] for step in run])
    wave_of: dict[int, int] = {}
    left = list(range(len(run)))
    waves: list[list[Step]] = []
    while left:
        wave = len(waves)
        ready = [i for i in left[:WINDOW] if all(wave_of.get(j, wave) < wave for j in waits_for[i])]
        wave_of |= dict.fromkeys(ready, wave)
        waves.append([run[i] for i in ready])
        left = [i for i in left if i not in wave_of]
    return waves


def _dependences(accesses: Sequence[tuple[Access, ...]]) -> list[set[int]]:
    """For each dispatch the earlier ones that touch the same bytes, one of the two writing."""
    touched: dict[Storage, list[tuple[int, Access]]] = {}
    result: list[set[int]] = []
    for index, own in enumerate(accesses):
        real = [a for a in own if not a.storage.is_constant and a.start < a.end]
        result.append({
            before
            for access in real
            for before, other in touched.get(access.storage, ())
            if conflict(access, other)
        })  # fmt: skip
        for access in real:
            touched.setdefault(access.storage, []).append((index, access))
    return result
