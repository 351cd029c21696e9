"""The arena: storages alive at once never share bytes, and little is wasted."""

from __future__ import annotations

import random
import time

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


def awkward(seed: int, count: int, steps: int = 60) -> list[Lifetime]:
    """Storages of any size that begin anywhere and live for a while: harder than a net's."""
    draw = random.Random(seed)
    lives = []
    for i in range(count):
        first = draw.randrange(steps)
        last = first + int(draw.expovariate(0.15))
        lives.append(Lifetime(Storage(64 * draw.randint(1, 4000), f"s{i}"), first, last))
    return lives


def test_awkward_lifetimes_waste_little() -> None:
    wasted = []
    for seed in range(24):
        lives = awkward(seed, 20 + 4 * seed)
        total = place_storages(lives)
        check(lives, total)
        wasted.append(total / lower_bound(lives))
    assert max(wasted) <= 1.04
    assert sum(wasted) / len(wasted) <= 1.01
    assert sum(ratio == 1 for ratio in wasted) >= 20


def test_the_search_gives_the_same_places_every_time() -> None:
    # 17 does not reach its bound with any of the starting orders, so the search has had its turn
    one, other = awkward(17, 88), awkward(17, 88)
    state = random.getstate()
    assert place_storages(one) == place_storages(other)
    assert [x.storage.offset for x in one] == [x.storage.offset for x in other]
    assert random.getstate() == state


def test_thousands_of_storages_are_placed_in_time() -> None:
    lives = awkward(1, 4000, 3000)
    began = time.process_time()
    total = place_storages(lives)
    assert time.process_time() - began < 10
    check(lives[:300], total)
    assert total <= 1.3 * lower_bound(lives)
