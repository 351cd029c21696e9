"""DepthToSpace, SpaceToDepth and LRN."""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random

CASES = [
    *(
        Case("DepthToSpace", (random(2, 12, 3, 5),), {"blocksize": 2, "mode": mode}, 13)
        for mode in ("DCR", "CRD")
    ),
    Case("DepthToSpace", (random(1, 9, 2, 2),), {"blocksize": 3}, 1),
    Case("DepthToSpace", (random(2, 8, 3, 5),), {"blocksize": 2}, 13, layout="c4"),
    Case("SpaceToDepth", (random(2, 3, 4, 6),), {"blocksize": 2}, 13),
    Case("SpaceToDepth", (random(1, 2, 6, 3),), {"blocksize": 3}, 1),
    *(
        Case("LRN", (random(2, channels, 5, 7, low=-4, high=4),), {"size": size, **more}, 13)
        for channels, size, more in [
            (7, 5, {}),
            (13, 3, {"alpha": 0.5, "beta": 0.6, "bias": 2.0}),
            (5, 4, {"alpha": 0.5}),
            (3, 9, {"alpha": 0.5}),
            (9, 1, {"alpha": 0.5}),
        ]
    ),
    Case("LRN", (random(1, 6, 9, low=-4, high=4),), {"size": 3, "alpha": 0.5}, layout="c4"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    if case.attributes.get("size", 1) % 2 == 1 and len(case.inputs[0].shape) == 4:
        check_reference(case)
    else:  # onnxruntime takes odd sizes of four-dimensional tensors only
        check_reference(case, _normalised_by_definition)


def _normalised_by_definition(case: Case) -> list[np.ndarray]:
    x, size, alpha = case.inputs[0], case.attributes["size"], case.attributes["alpha"]
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        y[:, c] = (
            x[:, c] / (1 + alpha / size * (window.astype(np.float64) ** 2).sum(axis=1)) ** 0.75
        )
    return [y]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_inverse(mode: str) -> None:
    x = random(2, 3, 4, 6)
    there = Case("SpaceToDepth", (x,), {"blocksize": 2, "mode": mode})
    (deep,) = there.expected()
    (back,) = Case("DepthToSpace", (deep,), {"blocksize": 2, "mode": mode}).expected()
    assert np.array_equal(back, x)


@pytest.mark.parametrize(
    "case",
    [
        Case("DepthToSpace", (random(1, 6, 2, 2),), {"blocksize": 2}),
        Case("DepthToSpace", (random(1, 4, 2, 2),), {"blocksize": 2, "mode": "RCD"}),
        Case("SpaceToDepth", (random(1, 4, 3, 2),), {"blocksize": 2}),
        Case("SpaceToDepth", (random(1, 4, 3),), {"blocksize": 2}),
        Case("LRN", (random(1, 4, 3),), {"size": 0}),
    ],
    ids=str,
)
def test_contradictions_are_errors(case: Case) -> None:
    with pytest.raises(vkconv.InvalidModelError, match="node_under_test"):
        case.types()
