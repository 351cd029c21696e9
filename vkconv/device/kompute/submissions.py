"""Which dispatches may share a submission, and which storages may share memory. Pure data.

kp records barriers from copies to kernels, and none between kernels. What depends on a dispatch
therefore goes into a later submission: the host's wait for the fence between the two makes the
writes available, and the barrier that kp records before every dispatch makes them visible (Vulkan
1.3 specification, 7.1 "Execution and Memory Dependencies", 7.3 "Fences").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vkconv.dispatch import BufferRange, Dispatch, Storage


def in_submissions(dispatches: Sequence[Dispatch]) -> list[list[Dispatch]]:
    """The dispatches in as few groups as their order allows; none depends on one of its group.

    A dispatch goes right behind the last group that holds one it must wait for (RAW, WAR or WAW on
    bytes of a storage), however far back that is.
    """
    groups: list[list[Dispatch]] = []
    earlier: dict[Storage, list[tuple[BufferRange, int]]] = {}
    for dispatch in dispatches:
        ranges = [r for r in dispatch.buffers.values() if not r.storage.is_constant]
        behind = [
            number
            for own in ranges
            for other, number in earlier.get(own.storage, ())
            if _conflict(own, other)
        ]
        group = max(behind, default=-1) + 1
        if group == len(groups):
            groups.append([])
        groups[group].append(dispatch)
        for own in ranges:
            earlier.setdefault(own.storage, []).append((own, group))
    return groups


def _conflict(a: BufferRange, b: BufferRange) -> bool:
    overlap = a.offset < b.offset + b.size and b.offset < a.offset + a.size
    return overlap and (a.writes or b.writes)


@dataclass
class Lifetime:
    """The first and the last submission of a plan that touch a storage."""

    first: int
    last: int


def lifetimes(groups: Iterable[Iterable[Dispatch]]) -> dict[Storage, Lifetime]:
    """Of every storage that dispatches touch, constants apart; ``groups`` in order of execution."""
    found: dict[Storage, Lifetime] = {}
    for number, group in enumerate(groups):
        for dispatch in group:
            for bound in dispatch.buffers.values():
                if not bound.storage.is_constant:
                    found.setdefault(bound.storage, Lifetime(number, number)).last = number
    return found


@dataclass
class Slot:
    """Memory that storages take turns in, each from its start."""

    size: int
    storages: list[Storage]


def share_memory(lives: dict[Storage, Lifetime]) -> list[Slot]:
    """Storages whose lifetimes do not meet in one slot: the largest first, each into the smallest
    slot that is free (which it never outgrows, since larger ones came before)."""
    slots: list[Slot] = []
    for storage, life in sorted(lives.items(), key=lambda item: -item[0].size):
        free = [s for s in slots if not any(_meet(life, lives[other]) for other in s.storages)]
        if free:
            min(free, key=lambda s: s.size).storages.append(storage)
        else:
            slots.append(Slot(storage.size, [storage]))
    return slots


def _meet(a: Lifetime, b: Lifetime) -> bool:
    return a.first <= b.last and b.first <= a.last
