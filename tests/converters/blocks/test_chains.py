"""Norms and implicit layers fold into the layer they follow or precede, and into no other."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.converters.frozen import apart, norms, scramble
from tests.converters.wild_blocks import (
    BasicBlock,
    ConvModule,
    IDetect,
    ImplicitA,
    ImplicitM,
    conv_bn,
)
from vkconv.converters.blocks.proof import nmse
from vkconv.converters.reparameterization import reparameterize

X = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(1))


def pair(seed: int) -> tuple[nn.Sequential, torch.Tensor]:
    """A random layer with its norm, and an input."""
    rng = random.Random(seed)
    kind = rng.choice([nn.Conv1d, nn.Conv2d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d,
                       nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear])  # fmt: skip
    if kind is nn.Linear:
        inputs, outputs = rng.randint(1, 9), rng.randint(1, 9)
        layer = nn.Linear(inputs, outputs, bias=rng.random() < 0.5)
        return nn.Sequential(layer, nn.BatchNorm1d(outputs)), torch.randn(5, inputs)
    axes = int(kind.__name__[-2])
    groups, kernel = rng.randint(1, 3), rng.randint(1, 3)
    inputs, outputs = groups * rng.randint(1, 4), groups * rng.randint(1, 4)
    layer = kind(
        inputs, outputs, kernel, rng.randint(1, 2), rng.randint(0, kernel // 2), groups=groups,
        dilation=rng.randint(1, 2), bias=rng.random() < 0.5,
    )  # fmt: skip
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
    affine = rng.random() < 0.8
    return nn.Sequential(layer, norm(outputs, affine=affine)), torch.randn(2, inputs, *[7] * axes)


@pytest.mark.parametrize("seed", range(30))
def test_every_kind_of_layer_takes_its_norm(seed: int) -> None:
    torch.manual_seed(seed)
    net, x = pair(seed)
    scramble(net, seed)
    found = reparameterize(net)
    assert isinstance(found[1], nn.Identity) and type(found[0]) is type(net[0])
    assert found[0].bias is not None
    assert apart(found, net, x) <= 1e-10


@pytest.mark.parametrize(
    "block",
    [ConvModule(6, 8, 3, padding=1), BasicBlock(6), conv_bn(6, 5, 3, stride=2)],
    ids=["ConvModule", "BasicBlock", "Sequential"],
)
def test_pairs_by_order_of_calls(block: nn.Module) -> None:
    scramble(block, 2)
    found = reparameterize(block)
    assert norms(found) == 0
    assert apart(found, block, X) <= 1e-10


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    "block",
    [BasicBlock(6, pre_activation=True), ConvModule(6, 6, 3, order=("norm", "act", "conv"))],
    ids=["pre-activation", "norm first"],
)
def test_a_norm_before_its_convolution_stays(block: nn.Module) -> None:
    """The names pair conv1 with bn1, the calls do not."""
    scramble(block, 3)
    found = reparameterize(block)
    # of the pre-activation block only conv1 -> bn2 follow each other directly
    assert norms(found) == 1
    assert apart(found, block, X) <= 1e-10


def test_a_linear_frozen_norm_by_structure() -> None:
    class FrozenBatchNorm2d(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.eps = 1e-5
            for name in ("weight", "bias", "running_mean"):
                self.register_buffer(name, torch.randn(channels))
            self.register_buffer("running_var", torch.rand(channels) + 0.1)

        def forward(self, x):
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            shift = self.bias - self.running_mean * scale
            return x * scale[:, None, None] + shift[:, None, None]

    net = nn.Sequential(nn.Conv2d(6, 4, 3, bias=False), FrozenBatchNorm2d(4)).eval()
    found = reparameterize(net)
    assert isinstance(found[1], nn.Identity)
    assert apart(found, net, X) <= 1e-10


class Uses(nn.Module):
    """conv and bn, with a forward given as a function."""

    def __init__(self, forward, channels: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.how = forward

    def forward(self, x):
        return self.how(self, x)


def used_twice(m, x):
    y = m.conv(x)
    return m.bn(y) + y


def returned_too(m, x):
    y = m.conv(x)
    return torch.cat([m.bn(y), y], 1)


def between(m, x):
    return m.bn(F.relu(m.conv(x)))


def called_twice(m, x):
    return m.bn(m.conv(m.bn(m.conv(x))))


def weight_read(m, x):
    return m.bn(m.conv(x)) + m.conv.weight.sum()


@pytest.mark.parametrize("how", [used_twice, returned_too, between, called_twice, weight_read])
@pytest.mark.parametrize("by", ["trace", "run"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_used_otherwise_is_left(how, by: str) -> None:
    """Folding would change the other use. By torch.fx, and where that cannot, by a run."""

    def untraceable(m, x):
        if x.sum() > 1e9:
            return x
        return how(m, x)

    net = scramble(nn.Sequential(nn.ReLU(), Uses(how if by == "trace" else untraceable)), 4)
    found = reparameterize(net, example_inputs=X)
    assert norms(found) == 1
    assert apart(found, net, X) <= 1e-10


@pytest.mark.parametrize("given", [X, (X,), {"x": X}], ids=["tensor", "tuple", "dict"])
def test_a_run_tells_what_a_trace_cannot(given) -> None:
    def branching(m, x):
        return m.bn(m.conv(x)) if x.mean() < 1e9 else x

    net = scramble(Uses(branching), 5)
    with pytest.warns(
        RuntimeWarning, match=r"'bn' left alone: the forward of Uses .*example_inputs"
    ):
        assert norms(reparameterize(net)) == 1
    found = reparameterize(net, example_inputs=given)
    assert norms(found) == 0
    assert apart(found, net, X) <= 1e-10


def test_repeated_use_is_told() -> None:
    net = scramble(nn.Sequential(Uses(called_twice)), 6)
    with pytest.warns(RuntimeWarning, match=r"'0\.bn' left beside '0\.conv'.* used 2 times"):
        reparameterize(net)


def test_one_convolution_with_norms_of_its_own_for_each_level() -> None:
    """RTMDet's heads: the convolution is shared between levels, the norms are not."""
    first, second = ConvModule(6, 6, 3, padding=1), ConvModule(6, 6, 3, padding=1)
    second.conv = first.conv

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.ModuleList([first, second])

        def forward(self, x, y):
            return torch.cat([self.levels[0](x), self.levels[1](y)])

    net = scramble(Levels(), 7)
    found = reparameterize(net)
    assert norms(found) == 0 and found.levels[0].conv is not found.levels[1].conv
    assert apart(found, net, X, X.flip(2)) <= 1e-10
    assert net.levels[0].conv is net.levels[1].conv


def test_parametrized_and_hooked_layers_are_left() -> None:
    weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3))
    net = scramble(nn.Sequential(weighted, nn.BatchNorm2d(4)), 8)
    with pytest.warns(RuntimeWarning, match=r"hooks or a parametrization; remove"):
        found = reparameterize(net)
    assert norms(found) == 1 and apart(found, net, X) <= 1e-10
    hooked = scramble(nn.Sequential(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)), 8)
    hooked[0].register_forward_hook(lambda part, given, y: y * 2)
    with pytest.warns(RuntimeWarning, match="hooks"):
        assert apart(reparameterize(hooked), hooked, X) <= 1e-10


def test_subclasses_are_tried() -> None:
    class SamePadded(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(F.pad(x, [0, 1, 0, 1]), self.weight, self.bias)

    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            weight = weight / self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias)

    net = scramble(nn.Sequential(SamePadded(6, 4, 2), nn.BatchNorm2d(4)), 9)
    found = reparameterize(net)
    assert norms(found) == 0 and apart(found, net, X) <= 1e-10
    net = scramble(nn.Sequential(Standardized(6, 4, 2), nn.BatchNorm2d(4)), 9)
    with pytest.warns(RuntimeWarning, match="does not compute the same"):
        found = reparameterize(net)
    assert norms(found) == 1 and apart(found, net, X) <= 1e-10


@pytest.mark.parametrize("seed", range(30))
def test_implicit_layers_around_a_convolution(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    groups = rng.randint(1, 3)
    inputs, outputs = groups * rng.randint(1, 4), groups * rng.randint(1, 4)
    before = ImplicitA(inputs) if rng.random() < 0.5 else ImplicitM(inputs)
    after = ImplicitM(outputs) if rng.random() < 0.5 else ImplicitA(outputs)
    layer = nn.Conv2d(
        inputs, outputs, rng.choice([1, 1, 3]), rng.randint(1, 2), groups=groups,
        bias=rng.random() < 0.5, dilation=rng.randint(1, 2),
    )  # fmt: skip
    net = scramble(nn.Sequential(before, layer, nn.BatchNorm2d(outputs), after), seed)
    found = reparameterize(net)
    assert [type(part) for part in found] == [nn.Identity, nn.Conv2d, nn.Identity, nn.Identity]
    assert apart(found, net, torch.randn(2, inputs, 9, 9)) <= 1e-10


def test_an_implicit_summand_does_not_reach_the_padding() -> None:
    net = nn.Sequential(ImplicitA(6), nn.Conv2d(6, 4, 3, padding=1)).eval()
    with pytest.warns(RuntimeWarning, match="'0' left beside '1'.*borders differ"):
        found = reparameterize(net)
    assert isinstance(found[0], ImplicitA) and apart(found, net, X) == pytest.approx(0, abs=1e-12)
    # a factor keeps zeros zero
    net = nn.Sequential(ImplicitM(6), nn.Conv2d(6, 4, 3, padding=1)).eval()
    found = reparameterize(net)
    assert isinstance(found[0], nn.Identity) and apart(found, net, X) <= 1e-10


@torch.no_grad()
def test_yolov7_heads_fold_by_their_names() -> None:
    net = IDetect(18, (4, 6, 8)).eval()
    pictures = [torch.randn(2, c, s, s) for c, s in ((4, 8), (6, 4), (8, 2))]
    found = reparameterize(net)
    assert all(isinstance(part, nn.Identity) for part in [*found.ia, *found.im])
    wanted = copy.deepcopy(net).double()([x.double() for x in pictures])
    for got, expected in zip(found(pictures), wanted, strict=True):
        assert nmse(got, expected) <= 1e-10


def test_tracing_leaves_nothing_behind() -> None:
    """A forward that stores what it computes must not keep a tracer's stand-in."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.last = conv_bn(6, 4, 3), None

        def forward(self, x):
            self.last = x
            return self.part(x)

    net = scramble(Keeps(), 10)
    found = reparameterize(net, inplace=True, example_inputs=X)
    assert found is net and net.last is None and norms(net) == 0
