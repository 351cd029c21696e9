"""DeformConv2d against the operator's NumPy reference, which ONNX Runtime judges elsewhere."""

from __future__ import annotations

import random
import re

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from vkconv.converters import DeformConv2d, deform_conv2d
from vkconv.converters.blocks.proof import nmse
from vkconv.errors import InvalidInputError
from vkconv.ops.deform_conv import DeformConv


def example(seed: int) -> tuple[DeformConv2d, list[torch.Tensor]]:
    """A random layer in float64 with its input, offsets (some beyond the map) and a mask."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    groups, parts = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2])
    kernel = (rng.randint(1, 4), rng.randint(1, 4))
    padding = rng.choice([rng.randint(0, 2), (1, 2), (0, 1, 2, 3)])
    layer = DeformConv2d(
        groups * parts * rng.randint(1, 3), groups * rng.randint(1, 3), kernel,
        (rng.randint(1, 3), rng.randint(1, 2)), padding, (rng.randint(1, 2), rng.randint(1, 3)),
        groups, parts, rng.random() < 0.7,
    ).double()  # fmt: skip
    x = torch.randn(2, layer.in_channels, 11, 13, dtype=torch.float64)
    top, left, below, right = pads(layer)
    out = [
        (size + pad - step * (k - 1) - 1) // move + 1
        for size, pad, step, k, move in zip(
            x.shape[2:], (top + below, left + right), layer.dilation, kernel, layer.stride,
            strict=True,
        )
    ]  # fmt: skip
    taps = parts * kernel[0] * kernel[1]
    given = [x, torch.randn(2, 2 * taps, *out, dtype=torch.float64) * 3]
    if rng.random() < 0.6:
        given.append(torch.rand(2, taps, *out, dtype=torch.float64))
    return layer, given


def pads(layer: DeformConv2d) -> tuple[int, ...]:
    return layer.padding * 2 if len(layer.padding) == 2 else layer.padding


@pytest.mark.parametrize("seed", range(30))
@torch.no_grad()
def test_against_the_reference(seed: int) -> None:
    layer, given = example(seed)
    x, offset, *mask = (tensor.numpy() for tensor in given)
    operator = DeformConv(
        dilations=layer.dilation, group=layer.groups, offset_group=layer.offset_groups,
        pads=pads(layer), strides=layer.stride,
    )  # fmt: skip
    bias = None if layer.bias is None else layer.bias.numpy()
    wanted = operator.reference(x, layer.weight.numpy(), offset, bias, *mask)
    found = layer(*given)
    assert nmse(found, torch.from_numpy(np.asarray(wanted))) <= 1e-25
    single = layer.float()(*(tensor.float() for tensor in given))
    assert nmse(single, found) <= 1e-9


def test_gradients() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 6, 3, 2, 2, 2, groups=2, offset_groups=2).double()
    x = torch.randn(1, 4, 7, 8, dtype=torch.float64, requires_grad=True)
    offset = (torch.randn(1, 36, 4, 4, dtype=torch.float64) * 2).requires_grad_()
    mask = torch.rand(1, 18, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = layer.weight, layer.bias

    def run(*given: torch.Tensor) -> torch.Tensor:
        x, offset, mask, weight, bias = given
        return deform_conv2d(x, offset, weight, bias, 2, 2, 2, mask)

    assert torch.autograd.gradcheck(run, (x, offset, mask, weight, bias))


@torch.no_grad()
def test_no_offsets_are_a_convolution() -> None:
    layer = DeformConv2d(4, 6, 3, padding=1, dilation=1, groups=2, offset_groups=2)
    plain = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 9, 8)
    assert nmse(layer(x, torch.zeros(2, 36, 9, 8)), plain(x)) <= 1e-12


class Told(nn.Module):
    def __init__(self, modulated: bool, bias: bool) -> None:
        super().__init__()
        self.offset = nn.Conv2d(4, 36, 3, padding=1)
        self.mask = nn.Conv2d(4, 18, 3, padding=1) if modulated else None
        self.deform = DeformConv2d(4, 6, 3, padding=1, offset_groups=2, groups=2, bias=bias)

    def forward(self, x):
        mask = None if self.mask is None else self.mask(x).sigmoid()
        return self.deform(x, self.offset(x), mask)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("modulated", "bias", "opset"), [(True, False, 19), (False, True, 20), (True, False, 22)]
)
@torch.no_grad()
def test_torch_exports_it_without_our_help(modulated, bias, opset, tmp_path) -> None:
    """One DeformConv node by torch.onnx.export itself, sizes open, which ONNX Runtime runs."""
    net, x = Told(modulated, bias).eval(), torch.randn(2, 4, 9, 11)
    for dynamo in (True, False) if opset <= 20 else (True,):
        path = str(tmp_path / "net.onnx")
        if dynamo:
            size = torch.export.Dim.DYNAMIC
            open_sizes = {"dynamic_shapes": ({0: size, 2: size, 3: size},)}
        else:
            open_sizes = {"dynamic_axes": {"x": {0: "b", 2: "h", 3: "w"}}}
        torch.onnx.export(
            net, (x,), path, dynamo=dynamo, opset_version=opset, input_names=["x"],
            verbose=False, **open_sizes,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(path)
        for picture in (x, torch.randn(1, 4, 6, 15)):
            (found,) = session.run(None, {"x": picture.numpy()})
            assert nmse(torch.from_numpy(found), net(picture)) <= 1e-9


@pytest.mark.filterwarnings("ignore")
def test_an_opset_without_it(tmp_path) -> None:
    with pytest.raises(InvalidInputError, match=r"since opset 19; export with opset_version=19"):
        torch.onnx.export(
            Told(True, True).eval(), (torch.zeros(1, 4, 5, 5),), str(tmp_path / "net.onnx"),
            dynamo=False, opset_version=17,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeformConv2d(4, 6, 3, groups=3), "groups=3 does not divide 4 input and 6 output"),
        (lambda: DeformConv2d(4, 6, 3, offset_groups=3), "offset_groups=3 does not divide 4"),
        (lambda: run(offset=(1, 17, 7, 7)), "the offset has 17 channels; 1 offset groups of 9"),
        (lambda: run(offset=(1, 18, 9, 9)), "the offset has size (9, 9)"),
        (lambda: run(mask=(1, 8, 7, 7)), "the mask has 8 channels; an offset of 18 channels"),
        (lambda: run(x=(1, 5, 9, 9)), "an input of 5 channels"),
        (lambda: loose(20), "the offset has 20 channels; a kernel of 9 taps over 4 channels"),
        (lambda: loose(54), "the offset has 54 channels; a kernel of 9 taps over 4 channels"),
    ],
)
def test_what_does_not_fit_is_named(make, message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        make()


def run(x=(1, 4, 9, 9), offset=(1, 18, 7, 7), mask=None) -> torch.Tensor:
    mask = None if mask is None else torch.zeros(mask)
    return DeformConv2d(4, 6, 3)(torch.zeros(x), torch.zeros(offset), mask)


def loose(channels: int) -> torch.Tensor:
    """The function tells the offset groups from the offset's channels."""
    return deform_conv2d(
        torch.zeros(1, 4, 9, 9), torch.zeros(1, channels, 7, 7), torch.zeros(6, 4, 3, 3)
    )
