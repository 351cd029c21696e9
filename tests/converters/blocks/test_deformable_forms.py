"""Three forms of deformable convolution become one that exports."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from tests.converters import wild_deformable as wild
from tests.converters.frozen import apart, norms, scramble
from tests.passes.plain_deform import PlainDeformConv2d
from vkconv.converters import DeformConv2d
from vkconv.converters.blocks.deformable_forms import DeformableBlock
from vkconv.converters.reparameterization import reparameterize


def geometry(rng: random.Random) -> tuple[dict[str, int], int]:
    """Arguments of a module, and its number of offset groups."""
    groups, parts = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2])
    inputs = groups * parts * rng.randint(1, 3)
    given = {
        "inputs": inputs,
        "outputs": groups * rng.randint(1, 4),
        "kernel": rng.choice([1, 3, 3, 5]),
        "stride": rng.randint(1, 2),
        "padding": rng.randint(0, 3),
        "dilation": rng.randint(1, 2),
        "groups": groups,
    }
    return given, parts


def torchvision_form(rng: random.Random) -> nn.Module:
    given, parts = geometry(rng)
    deform = wild.DeformConv2d(**given, bias=rng.random() < 0.5)
    return wild.Offsets(deform, parts, rng.random() < 0.6)


def mmcv_form(rng: random.Random) -> nn.Module:
    given, parts = geometry(rng)
    kind = rng.choice([wild.MmcvDeformConv2dPack, wild.MmcvModulatedDeformConv2dPack,
                       wild.MmcvModulatedDeformConv2d])  # fmt: skip
    module = kind(**given, deform_groups=parts)
    return wild.Offsets(module, parts) if kind is wild.MmcvModulatedDeformConv2d else module


def plain_form(rng: random.Random) -> nn.Module:
    kernel = rng.choice([1, 3, 3, 5])
    padding = rng.randint(1, {1: 1, 3: 2, 5: 3}[kernel])
    return wild.PlainDeformable(
        rng.randint(1, 5), rng.randint(1, 5), kernel, padding, rng.randint(1, 2),
        rng.random() < 0.6, rng.random() < 0.6,
    )  # fmt: skip


FORMS = {"torchvision": torchvision_form, "mmcv": mmcv_form, "plain": plain_form}


def restless(module: nn.Module, seed: int) -> nn.Module:
    """Offsets of a pixel or two, many beyond the map, and norms that matter."""
    scramble(module, seed)
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d) and ("offset" in name or "p_conv" in name):
            part.weight.data.normal_(0, 2 / part.weight[0].numel() ** 0.5)
            part.bias.data.normal_(0, 1.5)
    return module


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_one_that_exports(form: str, seed: int) -> None:
    torch.manual_seed(seed)
    net = restless(nn.Sequential(FORMS[form](random.Random(seed))), seed)
    found = reparameterize(net)
    assert sum(isinstance(part, DeformConv2d) for part in found.modules()) == 1
    assert not any(hasattr(part, "p_conv") or hasattr(part, "deform_groups")
                   for part in found.modules())  # fmt: skip
    assert norms(found) == 0
    inputs = next(part for part in net.modules() if isinstance(part, nn.Conv2d)).in_channels
    assert apart(found, net, torch.randn(2, inputs, 11, 14)) <= 1e-10


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_behind_our_own_layer(bias: bool) -> None:
    torch.manual_seed(2)
    block = with_norm_inside(wild.Offsets(DeformConv2d(4, 6, 3, padding=1, bias=bias)))
    net = restless(nn.Sequential(block), 2)
    found = reparameterize(net)
    assert norms(found) == 0 and found[0].deform.bias is not None
    assert apart(found, net, torch.randn(1, 4, 9, 8)) <= 1e-10


@pytest.mark.parametrize("form", ["torchvision", "mmcv"])
def test_a_norm_behind_goes_into_the_deformable_convolution(form: str) -> None:
    torch.manual_seed(3)
    if form == "mmcv":
        block = wild.MmcvModulatedDeformConv2dPack(4, 6, 3, padding=1)
    else:
        block = wild.Offsets(wild.DeformConv2d(4, 6, 3, padding=1, bias=False))
        block = with_norm_inside(block)
    net = nn.Sequential(block) if form == "torchvision" else nn.Sequential(block, nn.BatchNorm2d(6))
    restless(net, 3)
    found = reparameterize(net)
    assert norms(found) == 0
    assert apart(found, net, torch.randn(1, 4, 9, 8)) <= 1e-10


def with_norm_inside(block: wild.Offsets) -> nn.Module:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.deform, self.bn = block.offset, block.deform, nn.BatchNorm2d(6)

        def forward(self, x):
            return self.bn(self.deform(x, self.offset(x)))

    return Normalised()


def test_layers_a_plain_module_holds_but_does_not_use() -> None:
    """Some keep m_conv and bn whatever the options; what they compute decides."""
    net = restless(nn.Sequential(PlainDeformConv2d(3, 4)), 5)
    assert hasattr(net[0], "m_conv") and hasattr(net[0], "bn")
    found = reparameterize(net)
    assert isinstance(found[0], DeformableBlock) and found[0].conv_mask is None
    assert apart(found, net, torch.randn(1, 3, 9, 8)) <= 1e-10


def test_zero_offsets_do_not_hide_their_order() -> None:
    """Modules begin with offsets of zero; a wrong order would compute the same then."""
    net = scramble(nn.Sequential(wild.PlainDeformable(3, 4)), 6)
    nn.init.zeros_(net[0].p_conv.weight)
    nn.init.zeros_(net[0].p_conv.bias)
    found = reparameterize(net)
    for part, form in ((net[0], "p_conv"), (found[0], "conv_offset")):
        bias = getattr(part, form).bias.data
        rows = torch.tensor([1.0, 0.0]).repeat_interleave(9)
        bias.copy_(rows if form == "p_conv" else rows.reshape(2, 9).t().flatten())
    assert apart(found, net, torch.randn(1, 3, 9, 8)) <= 1e-10


def test_a_plain_module_as_the_whole_model() -> None:
    module = restless(wild.PlainDeformable(3, 4, modulated=True), 7)
    found = reparameterize(module)
    assert isinstance(found, DeformableBlock)
    assert apart(found, module, torch.randn(1, 3, 7, 6)) <= 1e-10
    assert (
        reparameterize(found) is not found
        and apart(reparameterize(found), module, torch.randn(1, 3, 7, 6)) <= 1e-10
    )


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (wild.PlainDeformable(3, 4, padding=0), r"unpadded map.*padding=0"),
        (wild.PlainDeformable(3, 4, kernel=3, padding=4), "no padding"),
    ],
    ids=["unpadded", "far out"],
)
def test_plain_modules_that_are_something_else_stay(module: nn.Module, reason: str) -> None:
    net = restless(nn.Sequential(module), 8)
    with pytest.warns(RuntimeWarning, match=f"'0' left as it is: .*{reason}"):
        found = reparameterize(net)
    assert hasattr(found[0], "p_conv")


def test_a_plain_module_that_computes_something_else_stays() -> None:
    class Swapped(wild.PlainDeformable):
        def offsets(self, x):
            return self.p_conv(x).flip(1)

    net = restless(nn.Sequential(Swapped(3, 4)), 9)
    with pytest.warns(RuntimeWarning, match="does not compute the same"):
        assert isinstance(reparameterize(net)[0], Swapped)


def test_an_mmcv_module_with_channels_that_do_not_fit() -> None:
    module = wild.MmcvDeformConv2dPack(4, 4, 3, padding=1)
    module.conv_offset = nn.Conv2d(4, 20, 3, padding=1)
    net = nn.Sequential(module).eval()
    with pytest.warns(RuntimeWarning, match=r"'conv_offset' has 20 channels; 18 or"):
        reparameterize(net)


def test_a_module_of_that_name_with_another_call() -> None:
    class DeformConv2d(wild.DeformConv2d):
        def forward(self, x):
            raise RuntimeError("not compiled with CPU support")

    net = nn.Sequential(DeformConv2d(4, 4, 3)).eval()
    with pytest.warns(RuntimeWarning, match=r"'0' left as it is: its forward takes other arg"):
        assert reparameterize(net)[0] is not None


def test_an_operator_missing_here_does_not_hinder() -> None:
    """mmcv's compiled operators may lack; the structure tells all there is to know."""

    class Compiled(wild.MmcvModulatedDeformConv2dPack):
        def forward(self, x):
            raise RuntimeError("not compiled with CPU support")

    module = restless(Compiled(4, 6, 3, padding=1), 10)
    found = reparameterize(nn.Sequential(module).eval())
    module.__class__ = wild.MmcvModulatedDeformConv2dPack
    assert apart(found, module, torch.randn(1, 4, 8, 9)) <= 1e-10
