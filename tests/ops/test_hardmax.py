"""vkconv/ops/hardmax.py"""

from __future__ import annotations

import pytest

from tests.harness import Case, check_device, check_reference, random

CASES = [
    Case("Hardmax", (random(*shape, low=-3, high=4, dtype="int32").astype(dtype),), given, opset)
    for shape, given, opset, dtype in [
        ((3, 7), {}, 13, "float32"),
        ((3, 7, 5), {"axis": 1}, 13, "float32"),
        ((3, 7, 50), {"axis": 0}, 13, "float32"),
        ((3, 50), {"axis": -1}, 13, "float16"),
        ((1000, 17), {"axis": 1}, 13, "float32"),
        ((3, 7, 5), {}, 11, "float32"),
        ((3, 7, 5), {"axis": 2}, 1, "float32"),
        ((3, 0), {}, 13, "float32"),
    ]
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)
