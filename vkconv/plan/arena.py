"""Where storages lie in the arena: two may share bytes when their lifetimes do not meet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vkconv.dispatch import ALIGNMENT, Storage


@dataclass
class Lifetime:
    """First and last step that touch a storage, both included."""

    storage: Storage
    first: int
    last: int


def place_storages(lifetimes: Iterable[Lifetime]) -> int:
    """Set every storage's ``offset``; returns the arena's size in bytes.

    Greedy by size (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
    2020): the largest first, each in the lowest gap between the storages alive at the same time.
    """
    placed: list[Lifetime] = []
    total = 0
    for life in sorted(lifetimes, key=lambda item: (-item.storage.size, item.first)):
        size = aligned(life.storage.size)
        offset = 0
        neighbours = sorted(
            (p for p in placed if p.first <= life.last and life.first <= p.last),
            key=lambda item: item.storage.offset,
        )
        for other in neighbours:
            if offset + size <= other.storage.offset:
                break
            offset = max(offset, other.storage.offset + aligned(other.storage.size))
        life.storage.offset = offset
        placed.append(life)
        total = max(total, offset + size)
    return total


def lower_bound(lifetimes: Iterable[Lifetime]) -> int:
    """The most bytes alive at one step: no placement can do with less."""
    changes: dict[int, int] = {}
    for life in lifetimes:
        size = aligned(life.storage.size)
        changes[life.first] = changes.get(life.first, 0) + size
        changes[life.last + 1] = changes.get(life.last + 1, 0) - size
    live = most = 0
    for step in sorted(changes):
        live += changes[step]
        most = max(most, live)
    return most


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
