"""Which dispatches go to Kompute together, and which storages share memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vkconv.device.kompute.submissions import Lifetime, in_submissions, lifetimes, share_memory
from vkconv.dispatch import BufferRange, Dispatch, Storage


def step(name: str, reads=(), writes=()) -> Dispatch:
    """A dispatch; what it touches is a storage, or (storage, first byte, bytes)."""
    buffers = {}
    for i, (given, written) in enumerate(
        [*((r, False) for r in reads), *((w, True) for w in writes)]
    ):
        storage, offset, size = given if isinstance(given, tuple) else (given, 0, given.size)
        buffers[f"b{i}"] = BufferRange(storage, offset, size, not written, written)
    return Dispatch(name, "kernel", (), buffers, {}, {}, (1, 1, 1))


def names(groups) -> list[str]:
    return ["".join(d.node for d in group) for group in groups]


A, B, C, D = (Storage(1024, name) for name in "abcd")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], []),
        ([step("p", [A], [B]), step("q", [B], [C])], ["p", "q"]),  # read after write
        ([step("p", [A], [B]), step("q", [C], [A])], ["p", "q"]),  # write after read
        ([step("p", [A], [B]), step("q", [C], [B])], ["p", "q"]),  # write after write
        ([step("p", [A], [B]), step("q", [A], [C])], ["pq"]),  # two readers
        ([step("p", [A], [B]), step("q", [B], [C]), step("r", [A], [D])], ["pr", "q"]),
        ([step("p", [A], [B]), step("q", [B], [B]), step("r", [B], [B])], ["p", "q", "r"]),
    ],
    ids=["none", "raw", "war", "waw", "readers", "later one goes forward", "in place"],
)
def test_groups(steps, expected):
    assert names(in_submissions(steps)) == expected


def test_parts_of_a_storage_do_not_wait_for_each_other():
    steps = [
        step("p", [A], [(B, 0, 512)]),
        step("q", [A], [(B, 512, 512)]),
        step("r", [(B, 256, 512)], [C]),
    ]
    assert names(in_submissions(steps)) == ["pq", "r"]


def test_constants_order_nothing():
    constant = Storage(1024, "weights", np.zeros(256, np.float32))
    steps = [step("p", [constant], [A]), step("q", [constant], [B, constant])]
    assert names(in_submissions(steps)) == ["pq"]


@pytest.mark.parametrize("seed", range(20))
def test_random_orders_keep_every_dependence_and_share_only_dead_memory(seed):
    random = np.random.default_rng(seed)
    storages = [Storage(int(256 * random.integers(1, 9)), str(i)) for i in range(12)]
    steps = []
    for i in range(40):
        first, second, third = random.choice(12, 3, replace=False)
        steps.append(step(f"{i}.", [storages[first], storages[second]], [storages[third]]))
    groups = in_submissions(steps)
    where = {d.node: k for k, group in enumerate(groups) for d in group}
    assert len(where) == len(steps)
    for j, later in enumerate(steps):
        for earlier in steps[:j]:
            touched = {(b.storage, b.writes) for b in earlier.buffers.values()}
            hazard = any(
                (b.storage, True) in touched or (b.writes and (b.storage, False) in touched)
                for b in later.buffers.values()
            )
            assert not hazard or where[earlier.node] < where[later.node]
    lives = lifetimes(groups)
    slots = share_memory(lives)
    assert sorted(s.name for slot in slots for s in slot.storages) == sorted(s.name for s in lives)
    for slot in slots:
        assert slot.size >= max(s.size for s in slot.storages)
        spans = sorted((lives[s].first, lives[s].last) for s in slot.storages)
        assert all(a[1] < b[0] for a, b in pairwise(spans))


def test_dead_memory_is_used_again():
    lives = {A: Lifetime(0, 1), B: Lifetime(1, 2), C: Lifetime(2, 3), D: Lifetime(3, 4)}
    slots = share_memory(lives)
    assert [[s.name for s in slot.storages] for slot in slots] == [["a", "c"], ["b", "d"]]
