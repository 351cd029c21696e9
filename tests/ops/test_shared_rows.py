"""Rows that lanes share, in every form the kernels have: vkconv/ops/shared_rows.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.harness import Case, check_device, random
from tests.ops.test_conv_selection import LAVAPIPE, MOBILE, NO_SHUFFLE, SWIFTSHADER
from vkconv.dispatch import Storage, View
from vkconv.ops.shared_rows import MOST_KEPT, MOST_KEPT_ON_CPU, RowShape, share_row, share_strided

SHUFFLED = {"lanes": "shuffled_row"}
SHARED = {"lanes": "shared_row"}
SCALAR = {"width": "scalar", "access": "ssbo"}
VEC4 = {"width": "vec4"}
#: whole vec4s or not; registers that all lanes need, some, or not enough of them; more lanes
LENGTHS = (16, 19, 20, 63, 64, 300, 8 * MOST_KEPT_ON_CPU, 1283, 1284, 9000, 9001)


@pytest.mark.parametrize(
    ("caps", "length", "expected"),
    [
        (LAVAPIPE, 300, RowShape(4, 8, 10, SHUFFLED | VEC4)),
        (LAVAPIPE, 301, RowShape(1, 8, 38, SHUFFLED | SCALAR)),
        (LAVAPIPE, 8 * MOST_KEPT_ON_CPU, RowShape(4, 8, 40, SHUFFLED | VEC4)),
        (LAVAPIPE, 8 * MOST_KEPT_ON_CPU + 4, RowShape(4, 8, 0, SHUFFLED | VEC4)),
        (LAVAPIPE, 8193, RowShape(1, 64, 129, SHARED | SCALAR)),
        (NO_SHUFFLE, 300, RowShape(4, 8, 10, SHARED | VEC4)),
        (SWIFTSHADER, 300, RowShape(4, 8, 0, SHARED | VEC4)),
        (MOBILE, 300, RowShape(4, 64, 2, SHARED | VEC4)),
        (MOBILE, 64 * MOST_KEPT, RowShape(4, 64, 8, SHARED | VEC4)),
        (MOBILE, 64 * MOST_KEPT + 4, RowShape(4, 64, 0, SHARED | VEC4)),
        (dataclasses.replace(MOBILE, max_workgroup_invocations=32), 62, None),
    ],
)
def test_rules(caps, length: int, expected: RowShape | None) -> None:
    expected = expected or RowShape(1, 32, 2, SHARED | SCALAR)
    assert share_row(caps, length, ()) == expected
    # rows that lie apart are never kept
    apart = dataclasses.replace(expected, unit=1, kept=0, axes=expected.axes | SCALAR)
    assert share_strided(caps, length) == apart


def test_views_that_begin_within_a_vec4_are_read_by_scalars() -> None:
    views = [View(Storage(64, "x"), (8, 8), "float32", "linear", offset) for offset in (0, 4, 6)]
    assert share_row(LAVAPIPE, 8, [*views[:2], None]).unit == 4
    assert share_row(LAVAPIPE, 8, views).unit == 1


def cases(length: int) -> list[Case]:
    x = random(3, length)
    scales = (random(length, seed=1), random(length, seed=2))
    return [
        Case("Softmax", (x,), {"axis": 1}),
        Case("LogSoftmax", (x * 20,), {"axis": 1}),
        Case("LayerNormalization", (x, *scales), {"axis": 1}, 17, (1, 2), reduction=length),
        Case("RMSNormalization", (x, scales[0]), {"axis": 1}, 23, (1,), reduction=length),
        Case("LpNormalization", (x,), {"axis": 1, "p": 1}, reduction=length),
        Case("ReduceMax", (x, np.array([1])), {"keepdims": 0}, 20, (1,)),
        Case("ReduceLogSumExp", (x * 20, np.array([1])), {}, 20, (1,), reduction=length),
    ]


@pytest.mark.parametrize("disabled", ["", "subgroup", "texel"])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_on_the_device(
    length: int, disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", ",".join(filter(None, ("plan_cache", disabled))))
    for case in cases(length):
        check_device(case)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_as_on_a_gpu(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_PROFILE", "desktop")
    for case in cases(length):
        check_device(case)


@pytest.mark.parametrize("length", [64, 63, 1284])
def test_rows_of_infinities(length: int) -> None:
    """Minus infinity is a power of zero; a row of nothing else is no distribution."""
    x = random(4, length)
    x[1, ::2] = -np.inf
    x[2, 5] = np.inf
    x[3] = -np.inf
    with np.errstate(invalid="ignore"):
        check_device(Case("Softmax", (x,), {"axis": 1}))
