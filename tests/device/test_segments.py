"""A plan cut at its host steps: what is uploaded and downloaded, and when."""

from __future__ import annotations

from tests.device.handmade import PlanMaker, chain
from vkconv.device.segments import split
from vkconv.dispatch import HostSlot


def test_dispatches_alone_are_one_segment():
    plan = chain(5)
    (segment,) = split(plan)
    assert len(segment.dispatches) == 5
    assert segment.uploads == [plan.inputs[0].place]
    assert segment.downloads == [plan.outputs[0].place]


def test_a_host_step_cuts():
    maker = PlanMaker()
    x, a, b, y = (maker.view(name) for name in "xaby")
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": a})
    maker.host(lambda v: v, [a], [b])
    maker.dispatch("scale", {"x": b, "y": y})
    maker.output("y", y)
    first, second = split(maker.plan())
    assert first.downloads == [a] and len(first.host_steps) == 1
    assert second.uploads == [b] and second.downloads == [y]


def test_a_host_step_that_reads_what_the_one_before_wrote_waits_for_its_upload():
    maker = PlanMaker()
    a, b, y = (maker.view(name) for name in "aby")
    maker.input("a", a)
    maker.host(lambda v: v, [a], [b])
    maker.host(lambda v: v, [b], [y])
    maker.output("y", y)
    segments = split(maker.plan())
    assert [s.uploads for s in segments] == [[a], [b], [y]]
    assert [s.downloads for s in segments] == [[a], [b], [y]]


def test_host_steps_on_slots_alone_do_not_cut():
    maker = PlanMaker()
    slot, other = HostSlot("s", (3,), "int64"), HostSlot("t", (3,), "int64")
    maker.input("s", slot)
    maker.host(lambda v: v, [slot], [other])
    maker.output("t", other)
    (segment,) = split(maker.plan())
    assert not segment.uploads and not segment.downloads and len(segment.host_steps) == 1


def test_empty_grids_and_empty_tensors_are_left_out():
    maker = PlanMaker()
    x, y = maker.view("x", (0, 4)), maker.view("y", (0,))
    maker.input("x", x)
    maker.dispatch("scale", {"x": x, "y": y}, grid=(1, 0, 1))
    maker.output("y", y)
    (segment,) = split(maker.plan())
    assert not segment.dispatches and not segment.uploads and not segment.downloads
