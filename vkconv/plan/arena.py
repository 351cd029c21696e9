"""Where storages lie in the arena: two may share bytes when their lifetimes do not meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vkconv.dispatch import ALIGNMENT, Storage

#: placements tried from one starting order
ROUNDS = 40
#: pairs of storages compared at most (a quarter of a second), for plans of thousands
MOST_PAIRS = 4_000_000


@dataclass(eq=False)
class Lifetime:
    """First and last step that touch a storage, both included."""

    storage: Storage
    first: int
    last: int


#: starting orders: the largest area in bytes and steps first, the largest size, the latest end
ORDERS: tuple[Callable[[Lifetime], tuple[int, ...]], ...] = (
    lambda life: (-life.storage.size * (life.last - life.first + 1), life.first),
    lambda life: (-life.storage.size, life.first),
    lambda life: (-life.last, -life.storage.size),
)


def place_storages(lifetimes: Sequence[Lifetime]) -> int:
    """Set every storage's ``offset``; returns the arena's size in bytes.

    Greedy (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020): one
    after the other in some order, each in the lowest gap between those alive at the same time. Then
    the storage that ends highest gets its turn earlier, and again, while that may help; then the
    same from another order. Of the nets under tests/models, all but one end at the lower bound.
    """
    least = lower_bound(lifetimes)
    best: tuple[int, list[tuple[Lifetime, int]]] | None = None
    rounds = max(1, min(ROUNDS, MOST_PAIRS // max(1, len(ORDERS) * len(lifetimes) ** 2)))
    for key in ORDERS:
        order = sorted(lifetimes, key=key)
        for _ in range(rounds):
            total, placed = _place(order)
            if best is None or total < best[0]:
                best = total, placed
            if best[0] == least:
                break
            highest = max(placed, key=lambda item: item[1] + aligned(item[0].storage.size))[0]
            position = order.index(highest)
            order.insert(position // 2, order.pop(position))
        if best is not None and best[0] == least:
            break
    if best is None:
        return 0
    for life, offset in best[1]:
        life.storage.offset = offset
    return best[0]


def _place(lifetimes: Sequence[Lifetime]) -> tuple[int, list[tuple[Lifetime, int]]]:
    """The arena's size, and every storage's offset when they are placed in this order."""
    placed: list[tuple[Lifetime, int]] = []
    total = 0
    for life in lifetimes:
        size = aligned(life.storage.size)
        offset = 0
        neighbours = [
            (start, start + aligned(other.storage.size))
            for other, start in placed
            if other.first <= life.last and life.first <= other.last
        ]
        for start, end in sorted(neighbours):
            if offset + size <= start:
                break
            offset = max(offset, end)
        placed.append((life, offset))
        total = max(total, offset + size)
    return total, placed


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
