"""Whole plans: ports, lifetimes, steps that do nothing, and faults that name their node."""

from __future__ import annotations

import numpy as np
import pytest

from tests.plan.planning import CPU, kernels, lowered, planned, reads, writes
from tests.random_graphs import random_model
from tests.small_models import floats, model, node
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import HostSlot, HostStep, View
from vkconv.errors import BuildError, InvalidModelError
from vkconv.plan import ConstantStore, make_plan
from vkconv.plan.views import ViewAssignment

REFERENCE = DeviceCaps(kind="reference", host_only=True)


def test_ports() -> None:
    nodes = [node("Relu", "x", "y"), node("Cast", "i", "f", to=1)]
    inputs = {"x": [2, 3], "i": ("int64", [4]), "unused": [5]}
    made = planned(model(nodes, inputs, {"y": None, "f": None, "x": [2, 3], "k": [2]},
                         {"k": floats(2)}))  # fmt: skip
    assert [(p.name, p.dtype, p.shape) for p in made.inputs] == [
        ("x", "float32", (2, 3)), ("i", "int64", (4,)), ("unused", "float32", (5,)),
    ]  # fmt: skip
    places = [type(p.place) for p in made.outputs]
    assert places == [View, View, View, np.ndarray] and made.inputs[2].place is None
    assert made.outputs[2].place == made.inputs[0].place


def test_inputs_and_outputs_keep_their_memory() -> None:
    for seed in range(25):
        made = planned(random_model(seed))
        touched: dict[int, set[int]] = {}
        for index, step in enumerate(made.steps):
            for storage in (*reads(step), *writes(step)):
                touched.setdefault(id(storage), set()).add(index)
        final = [p.place.storage for p in made.outputs if isinstance(p.place, View)]
        for storage in final:
            last = max(touched.get(id(storage), {-1}))
            for other in made.storages:
                late = max(touched.get(id(other), {-1})) > last
                apart = (other.offset + other.size <= storage.offset
                         or storage.offset + storage.size <= other.offset)  # fmt: skip
                assert other is storage or not late or apart


def test_everything_read_has_been_written() -> None:
    for seed in range(25):
        made = planned(random_model(seed))
        known = {id(p.place.storage) for p in made.inputs if isinstance(p.place, View)}
        for step in made.steps:
            assert {id(s) for s in reads(step)} <= known
            known |= {id(s) for s in writes(step)}


def test_host_only_plans_hold_no_views() -> None:
    made = planned(random_model(3), REFERENCE)
    assert all(isinstance(s, HostStep) for s in made.steps)
    assert all(isinstance(p.place, HostSlot) for p in (*made.inputs, *made.outputs))
    assert made.arena_size == 0 and not made.storages


def test_tensors_between_host_steps_stay_on_the_host() -> None:
    nodes = [node("Cast", "x", "a", to=11), node("Exp", "a", "b"), node("Neg", "b", "c"),
             node("Cast", "c", "y", to=1)]  # fmt: skip
    made = planned(model(nodes, {"x": [4]}, {"y": None}))
    hosts = [s for s in made.steps if isinstance(s, HostStep)]
    middle = [s for s in hosts if s.op_type in ("Exp", "Neg")]
    assert all(isinstance(x, HostSlot) for s in middle for x in (*s.inputs, *s.outputs))


def test_empty_tensors_need_no_dispatch() -> None:
    nodes = [node("Relu", "x", "a"), node("Conv", "a w", "b"), node("Neg", "b", "y")]
    made = planned(model(nodes, {"x": [0, 3, 4, 4]}, {"y": None}, {"w": floats(5, 3, 1, 1)}))
    assert all(all(d.grid) for d in made.dispatches)


def test_a_fault_of_lowering_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lowered(model([node("Relu", "x", "y", "faulty")], {"x": [4]}, {"y": None}))
    from vkconv.ops.registry import create

    def fails(*_: object) -> None:
        raise IndexError("no such thing")

    monkeypatch.setattr(type(create(graph.nodes[0])), "lower", fails)
    with pytest.raises(BuildError, match=r"'faulty'.*IndexError: no such thing"):
        make_plan(graph, CPU, ConstantStore())

    def refuses(*_: object) -> None:
        raise InvalidModelError("as it is")

    monkeypatch.setattr(type(create(graph.nodes[0])), "lower", refuses)
    with pytest.raises(InvalidModelError, match="as it is"):
        make_plan(graph, CPU, ConstantStore())


def test_planning_is_repeatable() -> None:
    def facts(made: object) -> list[object]:
        return [
            (d.kernel, d.variant, d.grid, d.push, d.spec, d.barrier,
             {n: (b.storage.offset, b.offset, b.size) for n, b in d.buffers.items()})
            for d in made.dispatches
        ]  # fmt: skip

    for seed in (1, 5):
        assert facts(planned(random_model(seed))) == facts(planned(random_model(seed)))


def test_two_readers_of_the_same_input() -> None:
    made = planned(model([node("Add", "x x", "y")], {"x": [8]}, {"y": None}))
    assert kernels(made) == ["binary"]
    (only,) = made.dispatches
    assert len({id(b.storage) for b in only.buffers.values()}) == 2


def test_view_assignment_gives_each_value_one_place() -> None:
    from vkconv.ops.registry import create

    graph = lowered(random_model(7))
    views = ViewAssignment(graph, {n: create(n) for n in graph.nodes})
    for value in graph.values():
        if not value.is_constant:
            assert views.place(value) is views.place(value)
