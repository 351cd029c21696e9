"""vkconv/ops/batch_normalization.py"""

from __future__ import annotations

import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import InvalidModelError, UnsupportedModelError


def normalised(*shape: int, **more: object) -> Case:
    channels = shape[1] if len(shape) > 1 else 1
    parameters = [random(channels, seed=i) for i in (1, 2, 3)]
    return Case(
        "BatchNormalization",
        (random(*shape), *parameters, random(channels, low=0.1, high=2, seed=4)),
        **{"constant": (1, 2, 3, 4), **more},
    )


SHAPES = [
    (2, 5, 7, 3),
    (1, 8, 4, 4),
    (3, 17),
    (2, 3, 5),
    (1, 6, 2, 3, 5),
    (5, 1, 1, 1),
    (0, 3, 2, 2),
]
CASES = [normalised(*shape) for shape in SHAPES]
CASES += [normalised(2, 3, 5, 5, opset=opset) for opset in (7, 9, 14)]
CASES += [normalised(2, 3, 5, 5, attributes={"epsilon": 0.1})]
C4_CASES = [
    normalised(*shape, layout="c4") for shape in SHAPES if len(shape) > 2 and 0 not in shape
]
HOST = [
    normalised(2, 3, 5, 5, constant=()),
    normalised(2, 3, 5, 5, attributes={"training_mode": 1, "momentum": 0.8}, outputs=3),
]


@pytest.mark.parametrize("case", CASES + HOST, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + C4_CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", HOST, ids=str)
def test_host(case: Case) -> None:
    check_device(case, where="host")


def test_wrong_parameters() -> None:
    case = Case("BatchNormalization", (random(2, 3, 5), *[random(4)] * 4))
    with pytest.raises(InvalidModelError, match="3 channels"):
        case.types()
    with pytest.raises(UnsupportedModelError, match="spatial"):
        normalised(2, 3, 5, opset=7, attributes={"spatial": 0}).types()
