"""DeformConv: reference against an independent one built on torch's grid_sample in float64, kernels
against reference, and offsets that no model should have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv import InferenceSession, ir
from vkconv.errors import InvalidModelError
from vkconv.ops import deform_conv_kernels
from vkconv.ops.activation_codes import Activation
from vkconv.ops.conv_geometry import conv_axes


def deform(
    x: tuple[int, ...],
    m: int,
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    offset_group: int = 1,
    bias: bool = True,
    mask: bool = True,
    spread: float = 2.0,
    constant: tuple[int, ...] = (1, 3),
    **attributes: Any,
) -> Case:
    """A DeformConv of constant weights over a random input of shape ``x``, its taps moved by up to
    ``spread`` pixels."""
    axes = conv_axes(
        x[2:],
        kernel,
        attributes.get("strides"),
        attributes.get("pads"),
        attributes.get("dilations"),
        "NOTSET",
    )
    out = [a.out for a in axes]
    taps = offset_group * int(np.prod(kernel))
    inputs = (
        random(*x),
        random(m, x[1] // group, *kernel, low=-1, high=1, seed=1),
        random(x[0], taps * len(kernel), *out, low=-spread, high=spread, seed=2),
        random(m, seed=3) if bias else None,
        random(x[0], taps, *out, low=0, high=1, seed=4) if mask else None,
    )
    attributes |= {"group": group, "offset_group": offset_group}
    present = tuple(i for i in constant if inputs[i] is not None)
    reduction = x[1] // group * int(np.prod(kernel))
    return Case("DeformConv", inputs, attributes, constant=present, reduction=reduction)


def oracle(case: Case) -> Sequence[ir.Array]:
    """Every tap of every offset group sampled by grid_sample, then one matrix product, in
    float64."""
    x, weight, offset, bias, mask = (
        None if a is None else torch.from_numpy(a).double() for a in case.inputs
    )
    assert x is not None and weight is not None and offset is not None
    attributes = case.attributes
    kernel = tuple(weight.shape[2:])
    stride = attributes.get("strides") or [1, 1]
    pad = attributes.get("pads") or [0, 0, 0, 0]
    dilation = attributes.get("dilations") or [1, 1]
    parts, groups = attributes["offset_group"], attributes["group"]
    n, channels, height, width = x.shape
    rows, columns = offset.shape[2:]
    moves = offset.reshape(n, parts, *kernel, 2, rows, columns)
    columns_of = []
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            sampled = []
            for part, chosen in enumerate(x.split(channels // parts, dim=1)):
                move = moves[:, part, ky, kx]
                row = torch.arange(rows)[:, None] * stride[0] - pad[0] + ky * dilation[0]
                column = torch.arange(columns)[None, :] * stride[1] - pad[1] + kx * dilation[1]
                at_row = (row + move[:, 0]).clamp(-5, height + 5).nan_to_num(-5)
                at_column = (column + move[:, 1]).clamp(-5, width + 5).nan_to_num(-5)
                grid = torch.stack(
                    [(2 * at_column + 1) / width - 1, (2 * at_row + 1) / height - 1], dim=-1
                )
                found = torch.nn.functional.grid_sample(chosen, grid, align_corners=False)
                if mask is not None:
                    found *= mask.reshape(n, parts, *kernel, 1, rows, columns)[:, part, ky, kx]
                sampled.append(found)
            columns_of.append(torch.cat(sampled, dim=1))
    patches = torch.stack(columns_of, dim=2).reshape(n, groups, channels // groups, -1)
    patches = patches.reshape(n, groups, channels // groups * len(columns_of), rows * columns)
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    y = torch.einsum("gok,ngkp->ngop", matrix, patches).reshape(n, -1, rows, columns)
    if bias is not None:
        y = y + bias[:, None, None]
    assert case.inputs[0] is not None
    return [y.numpy().astype(case.inputs[0].dtype)]


WHOLE = [
    deform((1, 8, 9, 11), 16, (3, 3), pads=[1, 1, 1, 1]),
    deform((2, 3, 7, 5), 5, (3, 3), bias=False),
    deform((1, 17, 13, 6), 33, (3, 3), mask=False, pads=[1, 1, 1, 1]),
    deform((1, 64, 20, 20), 64, (3, 3), pads=[1, 1, 1, 1]),
    deform((2, 12, 9, 7), 8, (3, 3), offset_group=3, strides=[2, 1], pads=[1, 0, 2, 1]),
    deform(
        (1, 16, 11, 9), 24, (3, 3), group=2, offset_group=4, dilations=[2, 3], pads=[2, 3, 2, 3]
    ),
    deform((1, 16, 8, 8), 16, (2, 2), group=4, offset_group=2),
    deform((1, 16, 8, 8), 8, (1, 1), group=2, offset_group=1),
    deform((1, 5, 6, 17), 7, (5, 3), pads=[2, 1, 2, 1]),
    deform((1, 4, 15, 15), 4, (7, 7), pads=[3, 3, 3, 3], mask=False),
    deform((2, 6, 1, 1), 3, (1, 1)),
    deform((1, 4, 3, 3), 70, (3, 3), pads=[1, 1, 1, 1], spread=40),
]
UNEVEN = [
    deform((1, 6, 7, 5), 6, (3, 3), group=6, pads=[1, 1, 1, 1]),
    deform((2, 6, 7, 5), 9, (3, 3), group=3, offset_group=2, pads=[1, 1, 1, 1], strides=[1, 2]),
    deform((1, 6, 9, 8), 4, (2, 3), offset_group=3),
    deform((1, 15, 5, 5), 10, (3, 3), group=5, offset_group=3, bias=False, mask=False),
]
CASES = WHOLE + UNEVEN
COMPUTED = [
    WHOLE[0].but(constant=()),
    WHOLE[1].but(constant=()),
    WHOLE[5].but(constant=(3,)),
    UNEVEN[1].but(constant=()),
    UNEVEN[3].but(constant=()),
    WHOLE[4].but(constant=(0, 1, 2, 3)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case, oracle)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", COMPUTED, ids=str)
def test_weights_that_the_model_computes(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", [WHOLE[0], WHOLE[4], UNEVEN[1]], ids=str)
def test_between_convolutions(case: Case) -> None:
    check_device(case.but(layout="c4"))


@pytest.mark.parametrize("case", [WHOLE[0], UNEVEN[1]], ids=str)
def test_first_version(case: Case) -> None:
    check_device(case.but(opset=19))


def test_no_offset_is_plain_convolution() -> None:
    case = deform((1, 8, 9, 11), 16, (3, 3), pads=[1, 1, 1, 1], mask=False, spread=0)
    x, weight, _, bias, _ = case.inputs
    plain = Case("Conv", (x, weight, bias), {"pads": [1, 1, 1, 1]}, reduction=72)
    assert_close(case.expected()[0], plain.expected()[0], 72)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("value", [1e30, -1e30, np.inf, -np.inf, np.nan, 2.0**31, -1.0, 5.0])
def test_offsets_far_outside(value: float, uneven: bool) -> None:
    case = UNEVEN[1] if uneven else WHOLE[4]
    offset = np.array(case.inputs[2])
    offset[:, ::3] = value
    wild = case.but(inputs=(*case.inputs[:2], offset, *case.inputs[3:]))
    check_reference(wild, oracle)
    check_device(wild)


def test_one_and_three_axes_run_on_the_host() -> None:
    for case in (
        deform((1, 4, 9), 5, (3,), pads=[1, 1]),
        deform((1, 4, 4, 5, 3), 6, (2, 2, 2), offset_group=2, mask=False),
    ):
        with pytest.warns(RuntimeWarning, match="no kernel"):
            check_device(case, where="host")


def test_half_precision() -> None:
    case = WHOLE[0]
    halves = tuple(None if a is None else a.astype(np.float16) for a in case.inputs)
    check_device(case.but(inputs=halves))


def test_empty_batch() -> None:
    check_device(deform((0, 4, 5, 5), 6, (3, 3)))


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (2, (1, 17, 9, 11), "offset has shape"),
        (2, (1, 18, 9, 10), "offset has shape"),
        (4, (1, 18, 9, 11), "mask has shape"),
        (3, (15,), "bias has shape"),
        (1, (16, 7, 3, 3), "do not fit"),
    ],
)
def test_wrong_shapes_are_named(position: int, shape: tuple[int, ...], message: str) -> None:
    inputs = list(WHOLE[0].inputs)
    inputs[position] = random(*shape)
    with pytest.raises(InvalidModelError, match=message):
        WHOLE[0].but(inputs=tuple(inputs)).types()


@pytest.mark.parametrize("attributes", [{"group": 3}, {"offset_group": 3}, {"offset_group": 0}])
def test_wrong_groups_are_refused(attributes: dict[str, int]) -> None:
    with pytest.raises(InvalidModelError):
        WHOLE[0].but(attributes={**WHOLE[0].attributes, **attributes}).types()


STORED = [*WHOLE[:2], WHOLE[4], WHOLE[5], WHOLE[6], WHOLE[10], WHOLE[11]]


@pytest.mark.parametrize("disabled", ["", "texel,subgroup"])
def test_stored_samples(disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled by one kernel and multiplied by another: groups, offset groups, batches, strides,
    channels that fill no block, weights that the model computes."""
    monkeypatch.setenv("VKCONV_DISABLE", f"plan_cache,{disabled}")
    monkeypatch.setattr(deform_conv_kernels, "stores_samples", lambda *_: True)
    monkeypatch.setattr(deform_conv_kernels, "_convolve", None)
    for case in (*STORED, COMPUTED[0], COMPUTED[2]):
        check_device(case)


def test_stored_samples_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deform_conv_kernels, "stores_samples", lambda *_: True)
    monkeypatch.setattr(deform_conv_kernels, "_convolve", None)
    for _, case in FUSED[:5]:
        check_device(case)


#: more outputs than are computed together with their samples, over 5 x 7, 14 x 14 and 7 x 7
MANY_OUTPUTS = [
    deform((1, 20, 5, 7), 460, (3, 3), pads=[1, 1, 1, 1], offset_group=5),
    deform((2, 6, 14, 14), 194, (3, 3), pads=[1, 1, 1, 1]),
    deform((1, 3, 7, 7), 257, (3, 3), pads=[1, 1, 1, 1], bias=False),
    deform((2, 16, 14, 28), 400, (3, 3), group=2, strides=[2, 4], pads=[1, 1, 1, 1]),
]


@pytest.mark.parametrize("case", MANY_OUTPUTS, ids=str)
def test_many_outputs_store_their_samples(case: Case) -> None:
    check_device(case)
    with InferenceSession(case.model()) as session:
        (stage,) = session._stages.values()
        assert "deform_samples" in {d.kernel for d in stage.plan.dispatches}


# --- the fused form ------------------------------------------------------------------------------


def fused(
    plain: Case, *, residual: str = "", offset_channel: int = 0, mask_channel: int = 0
) -> Case:
    """``plain`` with a LeakyRelu, a residual, and its computed offsets and mask in wider
    tensors."""
    x, weight, offset, bias, mask = plain.inputs
    assert x is not None and offset is not None
    shape = plain.types()[0].dims
    wide = [random(*offset.shape, low=-2, seed=9)[:, :offset_channel], offset]
    inputs = [x, weight, np.concatenate([*wide, offset[:, :3]], 1), bias, mask]
    attributes: dict[str, Any] = {
        **plain.attributes,
        "activation": int(Activation.LEAKY_RELU),
        "activation_alpha": 0.3,
        "residual": residual,
        "offset_channel": offset_channel,
    }
    if mask is not None:
        before = random(*mask.shape, seed=8)[:, :1].repeat(mask_channel, 1)
        inputs[4] = np.concatenate([before, mask * 4 - 2, mask[:, :1]], 1)
        attributes |= {"mask_channel": mask_channel, "mask_activation": int(Activation.SIGMOID)}
    inputs.append(random(*shape, seed=6) if residual else None)
    return plain.but(
        inputs=tuple(inputs),
        attributes=attributes,
        constant=tuple(i for i in plain.constant if i in (1, 3)),
        opset=1,
        domain="vkconv",
    )


def by_parts(plain: Case, whole: Case) -> ir.Array:
    """What the plain operator, by torch, and numpy make of a fused case."""
    mask = plain.inputs[4]
    if mask is not None:
        mask = (1 / (1 + np.exp(-(mask.astype(np.float64) * 4 - 2)))).astype(np.float32)
    y = oracle(plain.but(inputs=(*plain.inputs[:4], mask)))[0].astype(np.float64)
    residual = whole.inputs[5]
    if whole.attributes["residual"] == "first":
        y = y + residual
    y = np.where(y < 0, 0.3 * y, y)
    if whole.attributes["residual"] == "last":
        y = y + residual
    return np.asarray(y, np.float32)


#: plain case, fused case
FUSED = [
    (WHOLE[0], fused(WHOLE[0])),
    (WHOLE[2], fused(WHOLE[2], residual="first")),
    (WHOLE[4], fused(WHOLE[4], residual="last", offset_channel=1, mask_channel=3)),
    (WHOLE[5], fused(WHOLE[5], residual="first", offset_channel=6, mask_channel=2)),
    (WHOLE[1], fused(WHOLE[1], offset_channel=3, mask_channel=5)),
    (UNEVEN[1], fused(UNEVEN[1], residual="last", offset_channel=5)),
    (UNEVEN[3], fused(UNEVEN[3], residual="first")),
]


@pytest.mark.parametrize(("plain", "case"), FUSED, ids=str)
def test_fused(plain: Case, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_close(case.expected()[0], by_parts(plain, case), case.reduction)
    check_device(case)
    monkeypatch.setenv("VKCONV_DISABLE", "texel,subgroup")
    check_device(case)


def test_fused_on_a_device_of_four_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that Vulkan guarantees: the residual is added behind."""
    monkeypatch.setenv("VKCONV_LIMITS", "max_storage_buffers=4")
    for _, case in FUSED[1:4]:
        check_device(case)


@pytest.mark.parametrize(
    ("name", "channel"), [("offset_channel", 4), ("mask_channel", 2), ("offset_channel", -1)]
)
def test_channels_that_are_not_there(name: str, channel: int) -> None:
    case = fused(WHOLE[0])
    with pytest.raises(InvalidModelError, match=r"has shape|begin at channel -1"):
        case.but(attributes={**case.attributes, name: channel}).types()
