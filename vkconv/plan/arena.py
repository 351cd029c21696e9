"""Where storages lie in the arena: two may share bytes when their lifetimes do not meet."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vkconv.dispatch import ALIGNMENT, Storage

#: placements tried from one starting order
ROUNDS = 40
#: pairs of storages compared at most in a search (about 0.1 s): small nets get as many placements
#: as they need, plans of thousands of storages three or four
MOST_PAIRS = 1_000_000


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
    same from another order. Where none of them reaches the lower bound, a local search goes on from
    the best: it moves storages of the pile whose end is the arena's end.
    """
    if not lifetimes:
        return 0
    search = _Search(lifetimes)
    for key in ORDERS:
        search.from_order(sorted(range(len(lifetimes)), key=lambda i: key(lifetimes[i])))
    search.improve()
    best = search.best
    assert best is not None
    for life, offset in zip(lifetimes, best.offsets, strict=True):
        life.storage.offset = offset
    return best.total


@dataclass(frozen=True)
class _Placement:
    """What an order leads to: the arena's size, offsets by storage, the storage that ends last."""

    order: list[int]
    total: int
    offsets: list[int]
    highest: int


class _Search:
    """Placements of some storages (numbered), and the best of them so far."""

    def __init__(self, lifetimes: Sequence[Lifetime]) -> None:
        self._sizes = [aligned(life.storage.size) for life in lifetimes]
        self._least = lower_bound(lifetimes)
        self._meets = _meetings(lifetimes)
        self._pairs = sum(map(len, self._meets)) + len(lifetimes)
        self._budget = MOST_PAIRS
        self.best: _Placement | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is a placement, and no better one or no time to look for it."""
        if self.best is None:
            return False
        return self.best.total == self._least or self._budget < 0

    def from_order(self, order: list[int]) -> None:
        """Places in this order, and again with the storage that ends highest placed earlier."""
        for _ in range(ROUNDS):
            if self.is_over:
                return
            found = self._place(order)
            position = order.index(found.highest)
            order = order.copy()
            order.insert(position // 2, order.pop(position))

    def improve(self) -> None:
        """Moves one storage of the highest pile to another turn, and keeps what is no worse.

        Random, yet the same in every process: a plan is a function of its graph.
        """
        choose = random.Random(0)
        current = self.best
        while current is not None and not self.is_over:
            order = current.order.copy()
            moved = choose.choice(self._pile(current, choose))
            position = order.index(moved)
            # mostly earlier; now and then anywhere, which leads out of dead ends
            until = len(order) if choose.random() < 0.3 else position + 1
            order.insert(choose.randrange(until), order.pop(position))
            found = self._place(order)
            if found.total <= current.total:
                current = found

    def _pile(self, placement: _Placement, choose: random.Random) -> list[int]:
        """The storage that ends highest, one that it rests on, and so on to the ground."""
        pile = [placement.highest]
        offsets = placement.offsets
        while True:
            start = offsets[pile[-1]]
            below = [j for j in self._meets[pile[-1]] if offsets[j] + self._sizes[j] == start]
            if not below:
                return pile
            pile.append(choose.choice(below))

    def _place(self, order: list[int]) -> _Placement:
        """Every storage in the lowest gap between those placed before that it meets."""
        self._budget -= self._pairs
        sizes, offsets = self._sizes, [-1] * len(order)
        total = highest = 0
        for i in order:
            size, offset = sizes[i], 0
            taken = [(offsets[j], offsets[j] + sizes[j]) for j in self._meets[i] if offsets[j] >= 0]
            for start, end in sorted(taken):
                if offset + size <= start:
                    break
                offset = max(offset, end)
            offsets[i] = offset
            if offset + size > total:
                total, highest = offset + size, i
        placement = _Placement(order, total, offsets, highest)
        if self.best is None or total < self.best.total:
            self.best = placement
        return placement


def _meetings(lifetimes: Sequence[Lifetime]) -> list[list[int]]:
    """For each storage those that are alive at one of its steps, by number."""
    meets: list[list[int]] = [[] for _ in lifetimes]
    alive: list[int] = []
    for i in sorted(range(len(lifetimes)), key=lambda i: lifetimes[i].first):
        alive = [j for j in alive if lifetimes[j].last >= lifetimes[i].first]
        for j in alive:
            meets[i].append(j)
            meets[j].append(i)
        alive.append(i)
    return meets


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
