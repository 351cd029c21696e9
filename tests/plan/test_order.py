"""Waves: the order keeps every dependence, and dispatches that need not wait come together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import light
from tests.plan.planning import lowered
from tests.plan.test_barriers import Accesses, dispatch, hazard, host, touches
from tests.random_graphs import random_model
from tests.small_models import assert_same
from tests.test_random_graphs import feeds_for
from vkconv import InferenceSession
from vkconv import plan as plan_room
from vkconv.capabilities import DeviceCaps
from vkconv.device.vulkan import probe
from vkconv.dispatch import Dispatch, Step, Storage
from vkconv.plan import ConstantStore, make_plan
from vkconv.plan.lowering import Access
from vkconv.plan.order import in_waves

GPU = DeviceCaps(kind="integrated")


def check(before: Sequence[Step], after: Sequence[Step], accesses: Accesses) -> None:
    """The same steps; of two that touch the same bytes, the earlier is still the earlier one."""
    place = {id(step): i for i, step in enumerate(after)}
    assert sorted(place) == sorted(id(s) for s in before)
    for i, step in enumerate(before):
        for earlier in before[:i]:
            pair = isinstance(step, Dispatch) and isinstance(earlier, Dispatch)
            if not pair or hazard(accesses[id(earlier)], accesses[id(step)]):
                assert place[id(earlier)] < place[id(step)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(touches, max_size=4)), max_size=40))
def test_random_accesses(rows: list[list[tuple[int, int, int, int]] | None]) -> None:
    # before memory is shared: each storage has bytes of its own
    storages = [Storage(64, name, None, i * 64) for i, name in enumerate("abc")]
    storages.append(Storage(64, "constant", np.zeros(16, np.float32)))
    steps: list[Step] = []
    accesses: Accesses = {}
    for i, row in enumerate(rows):
        steps.append(host(str(i)) if row is None else dispatch(str(i)))
        accesses[id(steps[-1])] = tuple(
            Access(storages[s], at * 4, (at + size) * 4, bool(how & 1), bool(how & 2))
            for s, at, size, how in row or []
        )
    waves = in_waves(steps, accesses)
    check(steps, [step for wave in waves for step in wave], accesses)
    for wave in waves:
        for i, step in enumerate(wave):
            for other in wave[:i]:
                assert not hazard(accesses[id(step)], accesses[id(other)])


def planned(proto: object, caps: DeviceCaps, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(barriers in the model's order, barriers in waves)."""
    inside = make_plan(lowered(proto, caps), caps, ConstantStore())
    with monkeypatch.context() as patch:
        patch.setattr(plan_room, "in_waves", lambda steps, _: [[step] for step in steps])
        plain = make_plan(lowered(proto, caps), caps, ConstantStore())
    assert inside.arena_size <= plan_room.WAVES_MAY_COST * plain.arena_size
    assert len(inside.dispatches) == len(plain.dispatches)
    return sum(d.barrier for d in plain.dispatches), sum(d.barrier for d in inside.dispatches)


def test_the_branches_of_inception_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = planned(light.load("inception_v1"), GPU, monkeypatch)
    # 65 in the model's order, were its parallel convolutions not one
    assert after <= 32 < 36 <= before


def test_a_chain_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = planned(light.load("squeezenet"), DeviceCaps(kind="cpu"), monkeypatch)
    assert before == after  # CPU drivers run one dispatch at a time


def test_random_models_in_waves_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels and the order of an integrated GPU, on whatever device there is."""
    plain: dict[int, list[np.ndarray]] = {}
    for seed in range(10):
        with InferenceSession(random_model(seed)) as session:
            plain[seed] = session.run(None, feeds_for(session, seed))
    monkeypatch.setattr(probe, "_kind", lambda *_: "integrated")
    for seed, wanted in plain.items():
        with InferenceSession(random_model(seed)) as session:
            feeds = feeds_for(session, seed)
            session.run(None, {name: 3 - x for name, x in feeds.items()})
            assert_same(session.run(None, feeds), wanted)
    assert len(plain) == 10
