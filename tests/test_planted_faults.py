"""Faults planted in the planner: each is caught by what is there to catch it.

A missing barrier by the validation layer, a write out of bounds by the sentinels, a read of what
nobody wrote by the poisoned arena, and so is memory that is given away too early.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from tests import validation
from tests.device.handmade import ROOT, run_python
from tests.harness import Case, check_device, random
from vkconv import plan
from vkconv.dispatch import Dispatch

#: 21 elements, whose results begin at word 128 of the arena
CASE = Case("Relu", (random(3, 7),))


def plant(monkeypatch: pytest.MonkeyPatch, change: Callable[[Dispatch], Dispatch]) -> list[str]:
    """Changes every dispatch that plans contain from now on; the kernels it met are returned."""
    honest, met = plan.with_barriers, []

    def faulty(*given):
        steps = honest(*given)
        met.extend(s.kernel for s in steps)
        return [change(s) for s in steps]

    monkeypatch.setattr(plan, "with_barriers", faulty)
    return met


def counting(elements: int) -> Callable[[Dispatch], Dispatch]:
    """A change: so many elements more are computed, and may be written. What lies behind the input
    is not bound, and reads as zero: a copy of the poison onto the poison would change nothing."""

    def change(step: Dispatch) -> Dispatch:
        count = int(step.push["count"]) + elements
        ranges = {
            name: dataclasses.replace(b, size=b.size + max(elements, 0) * 4) if b.writes else b
            for name, b in step.buffers.items()
        }
        push = {**step.push, "count": count, "whole": count}
        return dataclasses.replace(step, buffers=ranges, push=push)

    return change


def test_the_case_is_sound_without_a_fault(monkeypatch):
    met = plant(monkeypatch, counting(0))
    check_device(CASE)
    assert met == ["unary"]


@pytest.mark.parametrize("elements", [1, 6])
def test_a_write_out_of_bounds_is_seen(monkeypatch, elements):
    plant(monkeypatch, counting(elements))
    with pytest.raises(AssertionError, match=r"written out of bounds: words \[149"):
        check_device(CASE)


@pytest.mark.parametrize("elements", [1, 21])
def test_what_is_read_but_never_written_is_seen(monkeypatch, elements):
    plant(monkeypatch, counting(-elements))
    with pytest.raises(AssertionError, match=rf"{elements} of 21 elements differ: .*nan"):
        check_device(CASE)


def test_memory_given_away_too_early_is_seen(monkeypatch):
    """The planner believes that every value dies where it is made."""
    honest = plan._lifetimes

    def short(*given):
        lives = honest(*given)
        for life in lives:
            if life.first >= 0:
                life.last = min(life.last, life.first)
        return lives

    case = Case("Softmax", (random(2, 8, 5, 5),), {"axis": 1}, layout="c4")
    check_device(case)
    monkeypatch.setattr(plan, "_lifetimes", short)
    with pytest.raises(AssertionError, match="elements differ"):
        check_device(case)


def test_validation_reports_each_message_at_its_test(tmp_path):
    """Also those of processes that a test starts, and none at the tests between."""
    done = run_python(
        "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--validate', "
        f"'-p', 'no:xdist', '--rootdir', {str(ROOT)!r}, 'tests/planted/messages.py']))",
        VKCONV_CACHE_DIR=str(tmp_path),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = set(re.findall(r"^ERROR \S+::(\w+)", done.stdout, re.MULTILINE))
    assert failed == {"test_missing_barrier", "test_child", "test_wrong_use"}, done.stdout
    assert "5 passed, 3 errors" in done.stdout
    assert len(re.findall(r"SYNC-HAZARD-READ-AFTER-WRITE[( ]", done.stdout)) >= 2
    assert re.search(r"VUID-VkBufferCreateInfo-(usage|None-09499)", done.stdout)


def test_what_validation_leaves_out_has_a_reason():
    assert all((ROOT / path).exists() and why for path, why in validation.NOT_VALIDATED.items())
    assert all(part and why for part, why in validation.ALLOWED)
