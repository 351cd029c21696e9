"""Barriers against every pair of dispatches: each hazard is ordered, and none waits for nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.test_assemble import transposed
from tests.plan.planning import CPU, lowered, overlap, planned
from tests.random_graphs import random_model
from tests.small_models import floats, model, node
from vkconv import plan as plan_room
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, HostStep, Step, Storage
from vkconv.ops.broadcasting import Walk
from vkconv.ops.parts import Part
from vkconv.ops.registry import create, infer_types
from vkconv.passes import finish
from vkconv.plan import ConstantStore, make_plan
from vkconv.plan.barriers import with_barriers
from vkconv.plan.lowering import Access

Accesses = dict[int, tuple[Access, ...]]


def hazard(a: Sequence[Access], b: Sequence[Access]) -> bool:
    """Whether two dispatches touch the same bytes of the arena, one of them writing."""
    return any(
        (x.writes or y.writes)
        and not x.storage.is_constant
        and not y.storage.is_constant
        and any(overlap(p, q) for p in pieces(x) for q in pieces(y))
        for x in a
        for y in b
    )


def pieces(access: Access) -> list[tuple[int, int]]:
    """The bytes of the arena, first and one past the last of each piece."""
    length = access.end - access.start - (access.count - 1) * access.step
    starts = [access.storage.offset + access.start + i * access.step for i in range(access.count)]
    return [(at, at + length) for at in starts if length > 0]


def check(steps: Sequence[Step], accesses: Sequence[tuple[Access, ...]]) -> None:
    """Every hazard has a barrier between; every barrier has a hazard it is for."""
    for index, step in enumerate(steps):
        if not isinstance(step, Dispatch):
            continue
        since = index
        while since > 0:
            before = steps[since - 1]
            if not isinstance(before, Dispatch):
                break
            since -= 1
            if before.barrier:
                break
        pending = [i for i in range(since, index) if hazard(accesses[index], accesses[i])]
        assert step.barrier == bool(pending), (index, pending)


def dispatch(name: str) -> Dispatch:
    return Dispatch(name, "kernel", (), {}, {}, {}, (1, 1, 1))


def host(name: str) -> HostStep:
    return HostStep(name, "Op", "why", (), (), lambda: None)


touches = st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 3), st.integers(1, 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(touches, max_size=4)), max_size=25))
def test_random_accesses(rows: list[list[tuple[int, int, int, int]] | None]) -> None:
    # storages that share bytes, as those whose lives don't meet do, and a constant
    storages = [Storage(64, "a"), Storage(64, "b", None, 0), Storage(64, "c", None, 32)]
    storages.append(Storage(64, "constant", np.zeros(16, np.float32)))
    steps: list[Step] = []
    accesses: list[tuple[Access, ...]] = []
    for i, row in enumerate(rows):
        steps.append(host(str(i)) if row is None else dispatch(str(i)))
        accesses.append(tuple(
            Access(storages[s], at * 4, (at + size) * 4, bool(how & 1), bool(how & 2))
            for s, at, size, how in row or []
        ))  # fmt: skip
    by_step: Accesses = {id(s): a for s, a in zip(steps, accesses, strict=True)}
    result = with_barriers(steps, by_step)
    assert [s.node for s in result] == [s.node for s in steps]
    check(result, accesses)


def test_random_models(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Sequence[Step], Accesses]] = []
    original = plan_room.with_barriers

    def keep(steps: Sequence[Step], by_step: Accesses) -> list[Step]:
        seen.append((list(steps), dict(by_step)))
        return original(steps, by_step)

    monkeypatch.setattr(plan_room, "with_barriers", keep)
    for seed in range(40):
        seen.clear()
        made = make_plan(lowered(random_model(seed)), CPU, ConstantStore())
        steps, by_step = seen[0]
        check(made.steps, [by_step.get(id(s), ()) for s in steps])


@settings(max_examples=300, deadline=None)
@given(*[st.tuples(*[st.integers(0, 40), st.integers(1, 9), st.integers(1, 4),
                     st.integers(0, 12)])] * 2, st.booleans())  # fmt: skip
def test_pieces_that_lie_apart(
    a: tuple[int, int, int, int], b: tuple[int, int, int, int], one_step: bool
) -> None:
    """Against the bytes themselves; where the steps differ, an overlap may be seen that is none."""

    def access(start: int, length: int, count: int, gap: int) -> tuple[Access, set[int]]:
        step = length + gap if count > 1 else 0
        touched = {start + i * step + k for i in range(count) for k in range(length)}
        end = start + (count - 1) * step + length
        return Access(Storage(999, "s"), start, end, True, True, count, step), touched

    if one_step:  # of one tensor: batches are as far apart
        b = (b[0], b[1], b[2], max(0, a[1] + a[3] - b[1]))
    (first, here), (second, there) = access(*a), access(*b)
    met = first.meets(second)
    assert met == second.meets(first) and (met or not here & there)
    if first.count == 1 or second.count == 1 or first.step == second.step:
        assert met == bool(here & there)


def test_batches_of_parts_of_a_concat_do_not_wait() -> None:
    nodes = [node("Conv", f"{x} w", y) for x, y in ("ap", "bq", "cr")]
    nodes += [node("Concat", "p q r", "j", axis=1), node("Relu", "j", "y")]
    inputs = {key: [3, 4, 5, 5] for key in "abc"}
    proto = model(nodes, inputs, {"y": None}, {"w": floats(8, 4, 1, 1)})
    made = planned(proto, DeviceCaps(kind="integrated"))
    convs = [d for d in made.dispatches if d.node.startswith("Conv")]
    assert [d.barrier for d in convs] == [True, False, False]  # they wait for their inputs only
    assert len({b.storage for d in convs for b in d.buffers.values() if b.writes}) == 1


def test_every_access_lies_in_what_its_descriptor_binds() -> None:
    for seed in range(20):
        for made in planned(random_model(seed)).dispatches:
            for bound in made.buffers.values():
                assert bound.offset % 256 == 0 and bound.size > 0
                assert bound.offset + bound.size <= -(-bound.storage.size // 16) * 16


def test_independent_branches_do_not_wait() -> None:
    nodes = [node("Relu", "x", "a"), node("Neg", "x", "b"), node("Abs", "x", "c"),
             node("Add", "a b", "d"), node("Add", "d c", "y")]  # fmt: skip
    made = planned(model(nodes, {"x": [64]}, {"y": None}))
    assert [d.barrier for d in made.dispatches] == [False, False, False, True, True]


def test_first_dispatch_and_those_behind_a_host_step_do_not_wait() -> None:
    nodes = [node("Relu", "x", "a"), node("Cast", "a", "b", to=11), node("Exp", "b", "c"),
             node("Cast", "c", "d", to=1), node("Neg", "d", "y")]  # fmt: skip
    made = planned(model(nodes, {"x": [64]}, {"y": None}))
    kinds = [s.barrier if isinstance(s, Dispatch) else "host" for s in made.steps]
    assert kinds[0] is False and "host" in kinds
    assert kinds[len(kinds) - kinds[::-1].index("host")] is False


def test_memory_that_is_used_again_waits() -> None:
    """a's bytes are c's, once b is there: writing c has to wait until b is written."""
    names = ["x", "a", "b", "c", "y"]
    nodes = [node("Softmax", *pair) for pair in itertools.pairwise(names)]
    made = planned(model(nodes, {"x": [8, 8]}, {"y": None}))
    offsets = {s.name: s.offset for s in made.storages}
    assert offsets["a"] == offsets["c"] or offsets["b"] == offsets["y"]
    assert all(d.barrier for d in made.dispatches[1:])


def test_parts_in_each_other_s_gaps_do_not_wait() -> None:
    graph, _, _ = transposed((2, 5, 12), "none")
    node = graph.nodes[0]
    (part,) = node.attributes["parts"]
    walk = part.walk
    channels = walk.strides[1].index(12)

    def of(first: int, count: int) -> Part:
        size = tuple(count if d == channels else n for d, n in enumerate(walk.size))
        return replace(part, walk=Walk(size, walk.strides), starts=(first, first * 12))

    node.attributes = {**node.attributes, "parts": (of(0, 2), of(2, 2), of(4, 1))}
    infer_types(create(node), node)
    caps = DeviceCaps(kind="cpu")
    finish(graph, caps)
    plan = make_plan(graph, caps, ConstantStore())
    assert [d.barrier for d in plan.dispatches] == [False] * 3
    overlapping = (of(0, 2), of(1, 2), of(4, 1))
    node.attributes = {**node.attributes, "parts": overlapping}
    plan = make_plan(graph, caps, ConstantStore())
    assert [d.barrier for d in plan.dispatches] == [False, True, False]
