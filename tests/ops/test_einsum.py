"""Einsum: vkconv/ops/einsum.py and einsum_equation.py."""

from __future__ import annotations

import pytest

import vkconv
from tests.harness import NODE, Case, check_device, check_reference, random
from tests.small_models import assert_same, expected, model, node
from vkconv.errors import InvalidModelError
from vkconv.ops.einsum_equation import parse_equation

EQUATIONS: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("ij->ji", ((3, 5),)),
    ("ij->ij", ((3, 5),)),
    ("ij,jk->ik", ((3, 5), (5, 7))),
    ("bij, bjk -> bik", ((2, 3, 5), (2, 5, 4))),
    ("bhid,bhjd->bhij", ((2, 3, 5, 8), (2, 3, 7, 8))),
    ("bhij,bhjd->bihd", ((2, 3, 5, 7), (2, 3, 7, 8))),
    ("bnhd,hde->bne", ((2, 3, 4, 5), (4, 5, 6))),
    ("...ij,...jk->...ik", ((2, 3, 5, 4), (1, 3, 4, 2))),
    ("...ij,jk->...ik", ((2, 3, 5, 4), (4, 2))),
    ("ii->i", ((5, 5),)),
    ("ii->", ((5, 5),)),
    ("...ii->...i", ((2, 4, 4),)),
    ("iij,jk->ki", ((3, 3, 4), (4, 5))),
    ("ij->", ((3, 5),)),
    ("ijk->j", ((3, 4, 5),)),
    ("i,j->ij", ((3,), (5,))),
    ("i,i->i", ((5,), (5,))),
    ("bi,bi->b", ((3, 17), (3, 17))),
    ("bij,b->ij", ((3, 4, 5), (3,))),
    (",ij->ij", ((), (3, 4))),
    ("ij,jk,kl->il", ((3, 5), (5, 4), (4, 6))),
    ("abc,cd,def->abef", ((2, 3, 4), (4, 5), (5, 2, 3))),
    ("ij,ij,ij->ij", ((3, 4),) * 3),
    ("i,j,k->kij", ((2,), (3,), (4,))),
    ("aBc,Bd->dac", ((2, 3, 4), (3, 5))),
    ("ij,kj", ((3, 5), (4, 5))),
    ("ba", ((3, 5),)),
    ("...a,...b", ((2, 3), (2, 4))),
    ("...,...->...", ((3, 1), (1, 4))),
    ("ijk,ijl->kl", ((3, 4, 5), (3, 4, 2))),
    ("abcdefg->gfedcba", ((2, 1, 2, 3, 1, 2, 2),)),
    ("bchw,bkhw->bck", ((2, 3, 5, 7), (2, 4, 5, 7))),
    ("oihw,bihw->bo", ((4, 3, 1, 1), (2, 3, 1, 1))),
]


def _case(equation: str, shapes: tuple[tuple[int, ...], ...]) -> Case:
    inputs = tuple(random(*s, seed=i) for i, s in enumerate(shapes))
    return Case("Einsum", inputs, {"equation": equation}, 12, reduction=32)


CASES = [_case(equation, shapes) for equation, shapes in EQUATIONS]
INTEGERS = Case(
    "Einsum",
    (random(3, 4, low=-9, high=9, dtype="int32"), random(4, 5, low=-9, high=9, dtype="int32")),
    {"equation": "ij,jk->ik"},
    12,
)
EMPTY = [_case("ij,jk->ik", ((0, 2), (2, 5)))]
SUM_OVER_NOTHING = _case("ij,jk->ik", ((3, 0), (0, 5)))


@pytest.mark.parametrize("case", [*CASES, INTEGERS], ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + EMPTY, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


def test_a_sum_over_nothing_is_zero() -> None:
    check_device(SUM_OVER_NOTHING, where="host")


def test_integers_on_host() -> None:
    check_device(INTEGERS, where="host")


def test_constant_operand() -> None:
    check_device(CASES[6].but(constant=(1,)))


def test_beside_its_operand() -> None:
    """Operand and result as neighbours in one concatenation: one storage, two places."""
    nodes = [
        node("Relu", "x", "r"),
        node("Einsum", "r", "e", equation="ij->ij"),
        node("Concat", "r e", "y", axis=0),
    ]
    proto = model(nodes, {"x": [3, 4]}, {"y": None})
    feeds = {"x": random(3, 4)}
    with vkconv.InferenceSession(proto) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))


@pytest.mark.parametrize(
    "equation,shapes,kernels",
    [
        ("bhid,bhjd->bhij", ((2, 3, 5, 8), (2, 3, 7, 8)), "pack_matrix, matrix_product"),
        ("bij,bjk->bik", ((2, 4, 8), (2, 8, 4)), "matrix_product"),
    ],
)
def test_no_needless_copies(
    equation: str, shapes: tuple[tuple[int, ...], ...], kernels: str
) -> None:
    with vkconv.InferenceSession(_case(equation, shapes).model()) as session:
        assert {p.node: p.detail for p in session.placement}[NODE] == kernels


@pytest.mark.parametrize(
    "equation,shapes",
    [
        ("ij,jk->ik", ((3, 5),)),
        ("ij,jk->ik", ((3, 5), (4, 7))),
        ("ij->ik", ((3, 5),)),
        ("ij->ii", ((3, 5),)),
        ("ijk->i", ((3, 5),)),
        ("i->i", ((3, 5),)),
        ("i1->i", ((3, 5),)),
        ("ij->i-", ((3, 5),)),
        ("...i,...i->...", ((2, 3), (4, 3))),
    ],
)
def test_equations_that_do_not_fit(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InvalidModelError):
        parse_equation(equation, shapes)
