"""Cast, CastLike, Identity, Dropout, Where: vkconv/ops/cast.py, identity.py, where.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import UnsupportedModelError
from vkconv.ir import DTYPES, Array


def cast(x: Array, dtype: str, **more: object) -> Case:
    return Case("Cast", (x,), {"to": DTYPES.index(dtype) + 1}, name=dtype, **more)


FLOATS = np.array([0, -0.0, 0.4, -0.6, 1.5, -2.5, 100.9, -100.9, 127], np.float32)
INTS = np.array([0, 1, -1, 7, 200, -200, 300, 70000, -70000], np.int32)
HALVES = np.array(
    [0, 1e-8, 6e-8, 1e-5, 0.1, 1 / 3, 65504, 65519, 65520, 1e9, -1e9, np.inf], np.float32
)
WHOLE = ("int32", "int64", "int16", "int8", "uint8", "uint16", "bool")

CASES = [cast(FLOATS, to) for to in ("int32", "int64", "int16", "int8", "bool", "float16")]
CASES += [cast(np.abs(FLOATS), to) for to in ("uint8", "uint16")]
CASES += [cast(INTS, to) for to in WHOLE if to != "int32"]
CASES += [cast(INTS.astype("int64"), to) for to in ("int32", "uint8", "bool", "float32")]
CASES += [cast(INTS, "float32"), cast(np.array([True, False, True]), "float32")]
CASES += [cast(random(3, 5, dtype="bool"), "int32"), cast(random(3, 5, dtype="bool"), "int64")]
CASES += [
    cast(random(7, low=0, high=255, dtype="uint8"), to) for to in ("int8", "int16", "float32")
]
CASES += [cast(HALVES, "float16"), cast(HALVES.astype("float16"), "float32")]
CASES += [cast(FLOATS, "int32", opset=opset) for opset in (9, 13, 19, 25)]
CASES += [
    cast(random(1, 3, 5), "int32"),
    cast(random(3, 8, low=-120, high=120), "int8"),
    cast(random(3, 8, low=-300, high=300, dtype="int32"), "uint8"),
    cast(random(3, 8, low=-300, high=300, dtype="int32"), "float32"),
    cast(random(), "int32"),
    cast(random(2, 0), "int32"),
    Case("CastLike", (FLOATS, np.zeros(1, np.int32))),
    Case("CastLike", (INTS, np.zeros((2, 2), np.float32)), opset=15),
]
CASES += [
    Case("Where", (random(*c, dtype="bool"), random(*a), random(*b, seed=1)))
    for c, a, b in [
        ((3, 5, 7), (3, 5, 7), (3, 5, 7)),
        ((5, 1), (3, 5, 7), (7,)),
        ((1,), (17,), ()),
        ((), (), ()),
        ((2, 1, 3, 1, 2, 1), (1, 2, 1, 3, 1, 2), (3, 1, 2)),
        ((1000, 1), (1, 3), ()),
        ((0, 3), (3,), (3,)),
        ((2, 4, 8), (2, 4, 8), ()),
        ((4, 8), (2, 4, 8), (2, 1, 8)),
        ((4, 1), (), (2, 4, 8)),
    ]
]
CASES += [
    Case("Where", tuple(random(5, 7, dtype=d, seed=i) for i, d in enumerate(("bool", t, t))))
    for t in ("int32", "bool", "int64")
]
CASES.append(
    Case(
        "Where",
        (random(5, 7, dtype="bool"), np.array(-1e9, np.float32), random(5, 7)),
        constant=(1,),
        opset=9,
    )
)
C4_CASES = [
    cast(random(2, 5, 3, 7), "float16", layout="c4"),
    cast(random(2, 5, 3, 7), "int32", layout="c4"),
]
#: Identity by itself leaves the graph
FOLDED = [
    Case("Identity", (random(3, 5),)),
    Case("Identity", (random(3, 5, dtype="int32"),), opset=9),
    Case("Dropout", (random(3, 5),)),
    Case("Dropout", (random(3, 5),), {"ratio": 0.3}, opset=9),
    Case(
        "Dropout",
        (random(3, 5), np.array(0.3, np.float32), np.array(False)),
        constant=(1, 2),
        opset=12,
    ),
]
HOST = [
    cast(FLOATS, "float64"),
    cast(np.abs(INTS), "uint32"),
    cast(INTS.astype("float64"), "float32"),
    cast(np.array([1.5, -2.25, 0.1, 1e-3], np.float32), "string"),
    cast(np.array(["1.5", "-2", "1e3"], dtype=object), "float32"),
    Case("Dropout", (random(3, 5),), outputs=2),
]


@pytest.mark.parametrize("case", CASES + FOLDED + HOST, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + C4_CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", HOST, ids=str)
def test_host(case: Case) -> None:
    check_device(case, where="host")


def test_out_of_range_floats_saturate() -> None:
    """C leaves the conversion undefined; numpy's result is the least integer on the usual
    processors."""
    from vkconv import InferenceSession

    case = cast(np.array([3e9, -3e9, np.inf, -np.inf], np.float32), "int32")
    with InferenceSession(case.model()) as session:
        (y,) = session.run(None, case.feeds())
    assert y.tolist() == [2**31 - 1, -(2**31), 2**31 - 1, -(2**31)]


def test_training_is_refused() -> None:
    case = Case("Dropout", (random(3), None, np.array(True)), constant=(2,))
    with pytest.raises(UnsupportedModelError, match="training"):
        case.types()
