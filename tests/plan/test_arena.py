"""The arena: storages alive at once never share bytes, and little is wasted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.planning import overlap, planned
from tests.random_graphs import random_model
from vkconv.dispatch import ALIGNMENT, Storage
from vkconv.plan.arena import Lifetime, aligned, lower_bound, place_storages

lifetimes = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(-1, 12), st.integers(0, 6)), max_size=40
).map(
    lambda rows: [
        Lifetime(Storage(size, f"s{i}"), first, first + more)
        for i, (size, first, more) in enumerate(rows)
    ]
)


def check(lives: list[Lifetime], total: int) -> None:
    for i, one in enumerate(lives):
        start, end = one.storage.offset, one.storage.offset + one.storage.size
        assert start % ALIGNMENT == 0 and start >= 0 and end <= total
        for other in lives[:i]:
            if one.first <= other.last and other.first <= one.last:
                at = other.storage.offset
                assert not overlap((start, end), (at, at + other.storage.size))


@settings(max_examples=150, deadline=None)
@given(lifetimes)
def test_storages_alive_at_once_are_apart(lives: list[Lifetime]) -> None:
    total = place_storages(lives)
    check(lives, total)
    assert total >= lower_bound(lives)
    assert total <= sum(aligned(life.storage.size) for life in lives)


@settings(max_examples=150, deadline=None)
@given(lifetimes)
def test_lower_bound_is_the_fullest_step(lives: list[Lifetime]) -> None:
    steps = range(-1, 20)
    fullest = max(
        sum(aligned(x.storage.size) for x in lives if x.first <= step <= x.last) for step in steps
    )
    assert lower_bound(lives) == fullest


def test_nothing_to_place() -> None:
    assert place_storages([]) == 0 and lower_bound([]) == 0


def test_a_chain_needs_two_tensors() -> None:
    lives = [Lifetime(Storage(1024, f"s{i}"), i, i + 1) for i in range(20)]
    assert place_storages(lives) == lower_bound(lives) == 2048


def test_zero_storages_still_have_a_place() -> None:
    lives = [Lifetime(Storage(4, "a"), 0, 0), Lifetime(Storage(4, "b"), 0, 0)]
    place_storages(lives)
    assert lives[0].storage.offset != lives[1].storage.offset


def test_random_models_waste_little() -> None:
    sizes, bounds = 0, 0
    for seed in range(30):
        plan = planned(random_model(seed))
        assert plan.arena_size >= plan.arena_lower_bound
        assert plan.arena_size <= 1.35 * plan.arena_lower_bound
        sizes, bounds = sizes + plan.arena_size, bounds + plan.arena_lower_bound
    assert sizes <= 1.05 * bounds
