"""Every kernel, in every variant that Kompute can run, through Kompute.

A part of what ``scripts/test --kompute`` runs, small enough for every run of the suite.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.harness import Case, check_device
from tests.ops.test_registry import _cases, _dispatched
from vkconv import shaders
from vkconv.capabilities import DeviceCaps
from vkconv.device import open_device
from vkconv.device.kompute import device

#: operators and kernels are dealt to this many tests
PARTS = 4


def opened_caps() -> DeviceCaps:
    opened = open_device("kompute")
    opened.close()
    return opened.caps


@cache
def chosen() -> tuple[list[Case], set[tuple[str, str]]]:
    """Cases that dispatch, together, whatever all cases dispatch on this device, and every operator
    with a kernel; and what they dispatch."""
    caps = opened_caps()
    cases: list[Case] = []
    seen: set[object] = set()
    dispatched: set[tuple[str, str]] = set()
    for case in _cases():
        found = _dispatched(case, caps)
        if found and not {case.op_type, *found} <= seen:
            seen |= {case.op_type, *found}
            dispatched |= found
            cases.append(case)
    return cases, dispatched


@pytest.mark.parametrize("part", range(PARTS))
def test_kernels(part: int) -> None:
    failures = []
    for case in chosen()[0][part::PARTS]:
        try:
            check_device(case, device="kompute")
        except AssertionError as error:
            failures.append(f"{case}: {error}")
    assert not failures, "\n".join(failures)


def test_kernels_of_an_integrated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen where workgroups share memory and registers, and not on CPU drivers."""
    plain = device._caps
    on_cpu = chosen()[1]
    monkeypatch.setattr(device, "_caps", lambda caps: replace(plain(caps), kind="integrated"))
    caps = opened_caps()
    others = [case for case in _cases() if not _dispatched(case, caps) <= on_cpu]
    assert others, "an integrated GPU gets the same kernels: this shows nothing"
    for case in others[:: max(1, len(others) // 12)]:
        check_device(case, device="kompute")


def test_hardly_a_kernel_is_left_out() -> None:
    """Those left out need texel buffers or shuffles, or are chosen by devices of other limits."""
    cases, dispatched = chosen()
    assert len({case.op_type for case in cases}) > 100
    assert len({kernel for kernel, _ in dispatched}) >= 0.9 * len(shaders.kernels())
