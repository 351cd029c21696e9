"""The fused convolution's factors of channels: reference against plain operators in float64, every
kernel against reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import Case, assert_close, check_device, random
from tests.ops.test_conv_kernels import on_device
from tests.sentinels import guarded_arenas
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession, shaders, verify
from vkconv.errors import InvalidModelError
from vkconv.ops import conv_kernels
from vkconv.ops.activation_codes import Activation
from vkconv.ops.conv_problem import SUBGROUP, Choice
from vkconv.ops.lowering import Lowering


def scaled(
    x: tuple[int, ...],
    m: int,
    *,
    residual: str = "",
    bias: bool = True,
    constant: tuple[int, ...] = (1, 2),
    kernel: tuple[int, ...] | None = None,
    **attributes: object,
) -> Case:
    """A FusedConv of ``m`` outputs with a factor for each channel of each x of the batch."""
    kernel = kernel or (1,) * (len(x) - 2)
    given = (
        random(*x),
        random(m, x[1] // int(str(attributes.get("group", 1))), *kernel, seed=1),
        random(m, seed=2) if bias else None,
        random(x[0], m, *x[2:], seed=3) if residual else None,
        random(*x[:2], *[1] * (len(x) - 2), seed=4),
    )
    attributes |= {"activation": int(Activation.LEAKY_RELU), "activation_alpha": 0.3}
    attributes["residual"] = residual
    present = tuple(i for i in constant if given[i] is not None)
    return Case("Conv", given, attributes, 1, present, reduction=x[1], domain="vkconv")


CASES = [
    scaled((1, 8, 5, 7), 16),
    scaled((2, 19, 9, 13), 70, residual="first"),
    scaled((3, 7, 6, 5), 5, residual="last", bias=False),
    scaled((1, 1, 3, 4), 1),
    scaled((2, 6, 17), 33),
    scaled((2, 5, 3, 4, 7), 6, residual="first"),
    scaled((1, 130, 1, 9), 3),
    scaled((2, 10, 7, 6), 12, strides=[2, 3]),
    scaled((2, 10, 7, 6), 12, constant=(2,)),
    scaled((2, 10, 7, 6), 12, constant=(1, 2, 4)),
]
#: no kernel of these takes factors: a dispatch before them multiplies
ELSEWHERE = [
    scaled((2, 10, 7, 6), 12, kernel=(3, 2)),
    scaled((1, 18, 9, 9), 17, kernel=(3, 3), pads=[1, 1, 1, 1], residual="first"),
    scaled((2, 6, 7, 6), 6, kernel=(3, 3), group=6),
    scaled((2, 6, 7, 6), 9, group=3),
]


def plain(case: Case) -> np.ndarray:
    """activation(W (x s) + b [+ r]) [+ r] with a pointwise W, in float64."""
    x, weight, bias, residual, scale = (
        None if a is None else a.astype(np.float64) for a in case.inputs
    )
    assert x is not None and weight is not None and scale is not None
    step = case.attributes.get("strides", [1] * (x.ndim - 2))
    x = (x * scale)[(..., *(slice(None, None, s) for s in step))]
    y = np.einsum("oi,ni...->no...", weight.reshape(weight.shape[:2]), x)
    if bias is not None:
        y += bias.reshape(-1, *[1] * (x.ndim - 2))
    if case.attributes["residual"] == "first":
        y = y + residual
    y = np.where(y < 0, 0.3 * y, y)
    return np.asarray(y + residual if case.attributes["residual"] == "last" else y)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    assert_close(case.expected()[0], plain(case).astype(np.float32), case.reduction)


@pytest.mark.usefixtures("both_results")
@pytest.mark.parametrize("case", CASES + ELSEWHERE, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


CHOICES = [
    Choice("conv2d_1x1", 8, 3, 8),
    Choice(SUBGROUP, 16, 14, 8),
    Choice("conv2d_8x4", 8, 4, 32),
    Choice("conv2d_8x4", 4, 4, 8),
    Choice("conv2d_shared", 64, 64, 64),
    Choice("conv2d_shared", 64, 64, 256),
]


@pytest.mark.usefixtures("both_results")
@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("disabled", ["", "texel"])
def test_every_kernel(choice: Choice, disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", ",".join(filter(None, ("plan_cache", disabled))))
    monkeypatch.setattr(conv_kernels, "select_kernel", lambda _, caps, *__: on_device(caps, choice))
    monkeypatch.setattr(conv_kernels, "_multiplied", _never)
    for case in (CASES[1], CASES[5]):
        check_device(case)


def _never(ctx: Lowering, *_: object) -> None:
    raise AssertionError("the kernel takes factors, and something else multiplies")


def test_strided_windows_of_the_tile_that_does_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    for choice in (Choice("conv2d_8x4", 8, 4, 8), Choice("conv2d_shared", 64, 64, 128)):
        monkeypatch.setattr(conv_kernels, "select_kernel", lambda *_, c=choice: c)
        for case in ELSEWHERE[:2]:
            check_device(case)


@pytest.mark.parametrize("kernel", ["conv2d_8x4", "conv2d_shared"])
def test_infinite_factors_of_a_padded_map(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pads the scaled map is zero, and no zero times infinity."""
    case = scaled((1, 5, 4, 3), 6, pads=[1, 1, 1, 1], residual="last")
    x, weight, bias, _, scale = case.inputs
    assert scale is not None
    factors = np.where(np.arange(5).reshape(scale.shape) == 2, np.inf, scale).astype(np.float32)
    infinite = case.but(inputs=(x, weight, bias, random(1, 6, 6, 5, seed=3), factors))
    (expected_here,) = infinite.expected()
    assert np.isfinite(expected_here[:, :, 0]).all() and not np.isfinite(expected_here).all()
    tile = 64 if kernel == "conv2d_shared" else 8
    choice = Choice(kernel, tile, 64 if tile == 64 else 4, 64)
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    monkeypatch.setattr(conv_kernels, "select_kernel", lambda *_: choice)
    check_device(infinite)


@pytest.mark.parametrize("disabled", ["unrolling", "subgroup", "texel,subgroup"])
def test_features_that_are_not_there(disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", f"plan_cache,{disabled}")
    check_device(CASES[1])


def test_a_device_of_four_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that Vulkan guarantees: the factors are multiplied before."""
    monkeypatch.setenv("VKCONV_LIMITS", "max_storage_buffers=4")
    for disabled in ("plan_cache", "plan_cache,texel"):
        monkeypatch.setenv("VKCONV_DISABLE", disabled)
        for case in (CASES[1], CASES[4]):
            check_device(case)
            with InferenceSession(case.model()) as session:
                (stage,) = session._stages.values()
                modules = [shaders.load(d.kernel, d.variant) for d in stage.plan.dispatches]
            assert "binary" in {m.kernel for m in modules}
            for module in modules:
                kinds = [b.kind for b in module.buffers]
                assert kinds.count("storage_buffer") <= 4, module.kernel


def test_a_wrong_shape_of_factors() -> None:
    x, weight, bias, residual, _ = CASES[0].inputs
    wrong = CASES[0].but(inputs=(x, weight, bias, residual, random(1, 9, 1, 1)))
    with pytest.raises(InvalidModelError, match=r"scale has shape \(1, 9, 1, 1\), expected \(1, 8"):
        wrong.types()


def test_squeeze_and_excitation_from_end_to_end() -> None:
    """A block as EfficientNet has it, of channels that fill no block, beside onnxruntime; and how
    it is named."""
    nodes = [
        node("Conv", "x d", "a", pads=[1, 1, 1, 1], group=10),
        node("GlobalAveragePool", "a", "g"),
        node("Conv", "g squeeze", "q"),
        node("Relu", "q", "r"),
        node("Conv", "r excite", "e"),
        node("Sigmoid", "e", "s"),
        node("Mul", "s a", "p"),
        node("Conv", "p w", "c"),
        node("Add", "x c", "b"),
        node("Tanh", "b", "y"),
    ]
    weights = {
        "d": floats(10, 1, 3, 3),
        "squeeze": floats(3, 10, 1, 1),
        "excite": floats(10, 3, 1, 1),
        "w": floats(10, 10, 1, 1, scale=0.3),
    }
    proto = model(nodes, {"x": [2, 10, 9, 7]}, {"y": None}, weights)
    feeds = {"x": floats(2, 10, 9, 7)}
    with guarded_arenas() as guard, InferenceSession(proto.SerializeToString()) as session:
        session.run(None, {"x": np.roll(feeds["x"], 1)})
        guard.poison()
        found = session.run(None, feeds)
        guard.check()
        where = {p.node: (p.where, p.detail) for p in session.placement}
    assert_same(found, expected(proto, feeds))
    for name in ("Mul:p", "Add:b", "Tanh:y"):
        assert where[name] == ("fused", "Conv:c")
    verified = verify(proto.SerializeToString(), feeds)
    assert verified.holds
    (check,) = [c for c in verified.checks if c.node == "Conv:c"]
    assert set(check.fused) == {"Mul:p", "Add:b", "Tanh:y"} and check.kernels
