"""vkconv/ops/matmul.py, gemm.py, matrix_product.py"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.capabilities import DeviceCaps
from vkconv.errors import InvalidModelError
from vkconv.ops.activation_codes import Activation
from vkconv.ops.matrix_product import Tile, select_tile

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 1), (1, 1)),
    ((3, 5), (5, 7)),
    ((8, 16), (16, 64)),
    ((17, 15), (15, 13)),
    ((9, 33), (33, 70)),
    ((1, 128), (128, 100)),
    ((2, 3, 5), (5, 7)),
    ((2, 3, 8), (2, 8, 4)),
    ((2, 1, 3, 5), (1, 4, 5, 7)),
    ((3, 5), (2, 5, 7)),
    ((2, 4, 8, 16), (2, 4, 16, 8)),
    ((5,), (5, 7)),
    ((3, 5), (5,)),
    ((5,), (5,)),
    ((2, 3, 5), (5,)),
    ((5,), (2, 5, 3)),
]


def product(a: tuple[int, ...], b: tuple[int, ...], **more: object) -> Case:
    return Case("MatMul", (random(*a), random(*b, seed=1)), reduction=a[-1], **more)


def gemm(m: int, k: int, n: int, c: tuple[int, ...] | None = None, **more: object) -> Case:
    attributes = dict(more.pop("attributes", {}))
    a = random(*((k, m) if attributes.get("transA") else (m, k)))
    b = random(*((n, k) if attributes.get("transB") else (k, n)), seed=1)
    inputs = (a, b) if c is None else (a, b, random(*c, seed=2))
    return Case("Gemm", inputs, attributes, reduction=k, **more)


CASES = [product(a, b, constant=constant) for a, b in SHAPES for constant in ((), (1,), (0,))]
CASES += [
    product((3, 5), (5, 7), opset=9),
    product((0, 5), (5, 7)),
    product((130, 64), (64, 96)),
]
CASES += [
    gemm(m, k, n, c, constant=constant, attributes={"transA": trans_a, "transB": trans_b})
    for m, k, n, c in [
        (3, 5, 7, (7,)),
        (8, 16, 12, (8, 1)),
        (1, 100, 10, (10,)),
        (9, 30, 33, (9, 33)),
    ]
    for trans_a in (0, 1)
    for trans_b in (0, 1)
    for constant in ((), (1, 2))
]
CASES += [
    gemm(4, 8, 12, attributes={"alpha": 0.5}),
    gemm(4, 8, 12, (), attributes={"alpha": 0.5, "beta": -2.0}),
    gemm(4, 8, 12, (1,), attributes={"beta": 2.0}),
    gemm(4, 8, 12, (1, 12), attributes={"beta": 0.0}),
    gemm(4, 8, 12, (4, 1), opset=9, constant=(1,)),
    gemm(4, 8, 12, (12,), opset=11, constant=(1, 2)),
]
CASES += [Case("MatMul", (random(2, 5, 7, 3), random(3, 5, seed=1)), layout="c4", reduction=3)]
CASES += [
    Case(
        "MatMul",
        (random(5, 16, dtype="float16"), random(16, 7, dtype="float16", seed=1)),
        reduction=16,
    )
]


def fused(case: Case, kind: Activation, bias: int | None = None) -> Case:
    """The case with the epilogue of its fused form: a bias of that length, an activation."""
    attributes = {**case.attributes, "activation": int(kind), "activation_alpha": 0.25}
    inputs = case.inputs if bias is None else (*case.inputs, random(bias, seed=3))
    name = f"{kind.name}{bias}"
    return case.but(attributes=attributes, inputs=inputs, opset=1, domain="vkconv", name=name)


FUSED = [
    fused(product(a, b, constant=constant), kind, bias)
    for a, b, bias in [
        ((3, 5), (5, 7), 7),
        ((2, 3, 16), (16, 64), 64),
        ((2, 17, 15), (15, 13), 1),
        ((2, 3, 8), (2, 8, 4), 4),
        ((1, 128), (128, 100), 100),
        ((5,), (5, 7), 7),
        ((3, 5), (5,), 1),
        ((2, 9, 30), (30, 33), None),
    ]
    for constant in ((), (1,), (1, 2))
    for kind in (Activation.NONE, Activation.GELU)
    if not (constant == (1, 2) and bias is None)
]
FUSED += [
    fused(gemm(9, 30, 33, c, constant=constant, attributes={"transB": 1, "alpha": 0.5}), kind)
    for c in (None, (33,), (9, 33))
    for constant in ((), (1,))
    for kind in (Activation.LEAKY_RELU, Activation.SIGMOID)
]
HOST = [
    Case(
        "MatMul",
        (random(3, 5, low=-5, high=5, dtype="int32"), random(5, 4, low=-5, high=5, dtype="int32")),
    ),
    product((2, 1, 2, 1, 2, 3), (1, 2, 1, 2, 3, 2)),
]


@pytest.mark.parametrize("case", CASES + HOST, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES + FUSED, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", HOST, ids=str)
def test_host(case: Case) -> None:
    check_device(case, where="host")


def test_a_fully_connected_layer() -> None:
    check_device(gemm(1, 4096, 1000, (1000,), constant=(1, 2), attributes={"transB": 1}))
    check_device(product((197, 192), (192, 576), constant=(1,)))


def test_a_weight_larger_than_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG's first fully connected layer takes 411 MB, and many devices bind 128 MiB at most."""
    from vkconv.plan import lowering

    made = lowering.PlanLowering.__init__

    def small(self: lowering.PlanLowering, caps: DeviceCaps, *rest: object) -> None:
        made(self, dataclasses.replace(caps, max_storage_buffer_range=1 << 17), *rest)

    monkeypatch.setattr(lowering.PlanLowering, "__init__", small)
    check_device(gemm(3, 100, 1001, (1001,), constant=(1, 2), attributes={"transB": 1}))


@pytest.mark.parametrize(
    ("kind", "size", "tile"),
    [
        ("cpu", (512, 512, 128), Tile(8, 2, 8)),
        ("cpu", (1, 4096, 1024), Tile(1, 2, 8)),
        ("cpu", (10, 4096, 128), Tile(5, 2, 8)),
        ("cpu with shuffles", (512, 512, 128), Tile(16, 2, 8)),
        ("cpu with shuffles", (18, 32, 128), Tile(9, 1, 8)),
        ("cpu", (64, 32, 16), Tile(8, 1, 8)),
        ("discrete", (512, 512, 128), Tile(4, 2, 32)),
        ("discrete", (1, 4096, 1024), Tile(1, 1, 32, 4)),
        ("integrated", (3, 20, 1024), Tile(3, 1, 8, 8)),
    ],
)
def test_tiles(kind: str, size: tuple[int, int, int], tile: Tile) -> None:
    name, _, shuffles = kind.partition(" with ")
    subgroup = (
        {"subgroup_shuffle": True, "subgroup_size": 8, "storage_texel": True} if shuffles else {}
    )
    assert select_tile(DeviceCaps(kind=name, **subgroup), *size) == tile


def test_slices_of_a_deep_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form for GPUs, in which several invocations share one sum."""
    from vkconv.ops import matrix_product

    monkeypatch.setattr(matrix_product, "select_tile", lambda *_: Tile(3, 1, 8, 4))
    check_device(gemm(3, 101, 50, (50,), constant=(1, 2)))
    monkeypatch.setattr(matrix_product, "select_tile", lambda *_: Tile(4, 2, 16, 1))
    check_device(gemm(30, 101, 150, (150,), constant=(1, 2)))


def test_shapes_that_do_not_multiply() -> None:
    with pytest.raises(InvalidModelError, match="5 against 6"):
        product((3, 5), (6, 7)).types()
    with pytest.raises(InvalidModelError, match="do not broadcast"):
        product((2, 3, 5), (3, 5, 7)).types()
    with pytest.raises(InvalidModelError, match="scalar"):
        Case("MatMul", (np.float32(1), random(3))).types()
    with pytest.raises(InvalidModelError, match="broadcast"):
        gemm(3, 5, 7, (5,)).types()


@pytest.mark.parametrize("constant", [(), (1,)])
def test_a_sum_over_nothing_is_zero(constant: tuple[int, ...]) -> None:
    case = product((3, 0), (0, 4), constant=constant)
    check_reference(case)
    check_device(case, where="host")


@pytest.mark.parametrize("bias", [(6,), (1, 7), ()])
def test_bias_of_another_shape(bias: tuple[int, ...]) -> None:
    case = fused(product((2, 3, 5), (5, 7)), Activation.NONE)
    with pytest.raises(InvalidModelError, match="bias has shape"):
        case.but(inputs=(*case.inputs, random(*bias))).types()


def test_fused_forms_by_hand() -> None:
    """In float64, without the operators that ``reference`` is made of."""
    a, b, bias = random(2, 3, 5), random(5, 7, seed=1), random(7, seed=3)
    exact = a.astype(np.float64) @ b.astype(np.float64) + bias
    (y,) = fused(product((2, 3, 5), (5, 7)), Activation.RELU, 7).expected()
    assert np.allclose(y, np.maximum(exact, 0), rtol=1e-5, atol=1e-5)
    case = fused(gemm(3, 5, 7, (7,), attributes={"alpha": 0.5, "beta": 2.0}), Activation.RELU)
    a, b, c = (np.asarray(x, np.float64) for x in case.inputs if x is not None)
    (y,) = case.expected()
    assert np.allclose(y, np.maximum(0.5 * (a @ b) + 2 * c, 0), rtol=1e-5, atol=1e-5)
