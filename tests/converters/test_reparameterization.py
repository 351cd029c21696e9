"""Collapsed modules must compute what their branched form computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.converters.frozen import apart as nmse
from tests.converters.frozen import scramble
from vkconv.converters.blocks.affine_map import identity_kernel
from vkconv.converters.demo_net import ConvNormAct, Elan, RepConv
from vkconv.converters.reparameterization import fuse_conv_norm, reparameterize
from vkconv.errors import InvalidInputError

CASES = [
    # inputs, outputs, kernel, stride, groups; equal channels at stride 1 have an identity branch
    (8, 8, 3, 1, 1),
    (8, 8, 3, 1, 2),
    (8, 8, 3, 1, 8),
    (12, 12, 5, 1, 4),
    (8, 12, 3, 1, 4),
    (8, 8, 3, 2, 1),
    (6, 10, 3, 2, 2),
    (5, 7, 1, 1, 1),
    (9, 9, 7, 1, 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_rep_conv_collapses_to_one_convolution(case: tuple[int, ...], seed: int) -> None:
    inputs, outputs, kernel, stride, groups = case
    torch.manual_seed(seed)
    block = scramble(RepConv(inputs, outputs, kernel, stride, groups), seed)
    assert (block.rbr_identity is not None) == (inputs == outputs and stride == 1)
    collapsed = reparameterize(block)
    assert collapsed.deploy and not block.deploy
    assert sum(isinstance(part, nn.Conv2d) for part in collapsed.modules()) == 1
    assert not any(isinstance(part, nn.BatchNorm2d) for part in collapsed.modules())
    x = torch.randn(2, inputs, 11, 14)
    assert nmse(collapsed, block, x) <= 1e-10


def test_random_configurations() -> None:
    rng = np.random.default_rng(7)
    for trial in range(25):
        groups = int(rng.integers(1, 5))
        inputs = groups * int(rng.integers(1, 6))
        outputs = inputs if rng.random() < 0.5 else groups * int(rng.integers(1, 6))
        torch.manual_seed(trial)
        block = scramble(
            RepConv(inputs, outputs, int(rng.choice([1, 3, 5])), int(rng.integers(1, 3)), groups),
            trial,
        )
        x = torch.randn(1, inputs, *rng.integers(5, 17, 2))
        assert nmse(reparameterize(block), block, x) <= 1e-10


@pytest.mark.parametrize("bias", [False, True])
def test_conv_norm_pairs_are_fused(bias: bool) -> None:
    torch.manual_seed(3)
    block = ConvNormAct(6, 10, 3, 2)
    if bias:
        block.conv = nn.Conv2d(6, 10, 3, 2, 1, bias=True)
    scramble(block, 3)
    collapsed = reparameterize(block)
    assert isinstance(collapsed.bn, nn.Identity) and collapsed.conv.bias is not None
    assert nmse(collapsed, block, torch.randn(1, 6, 12, 9)) <= 1e-10


def test_nested_blocks_are_found() -> None:
    torch.manual_seed(4)
    net = scramble(nn.Sequential(Elan(8, 6, 10), nn.ModuleDict({"a": RepConv(10, 10)})["a"]), 4)
    collapsed = reparameterize(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in collapsed.modules())
    assert nmse(collapsed, net, torch.randn(1, 8, 9, 9)) <= 1e-10


def test_batch_norm_without_scale_and_shift() -> None:
    torch.manual_seed(5)
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False).eval()
    convolution.eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2)
    x = torch.randn(1, 3, 8, 8)
    fused = fuse_conv_norm(convolution, norm)
    assert nmse(fused, nn.Sequential(convolution, norm), x) <= 1e-10


def test_identity_kernel_returns_its_input() -> None:
    x = torch.randn(1, 12, 6, 7)
    kernel = identity_kernel(12, 3, (3, 5), x)
    assert torch.equal(nn.functional.conv2d(x, kernel, padding=(1, 2), groups=3), x)


def test_copy_by_default_and_in_place_on_request() -> None:
    block = scramble(RepConv(4, 4), 0)
    before = copy.deepcopy(block.state_dict())
    assert reparameterize(block) is not block
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert reparameterize(block, inplace=True) is block
    assert block.deploy and not hasattr(block, "rbr_dense")


def test_collapsing_twice_changes_nothing() -> None:
    net = scramble(nn.Sequential(ConvNormAct(3, 8, 3), RepConv(8, 8)), 1)
    once = reparameterize(net)
    twice = reparameterize(once)
    first, second = once.state_dict(), twice.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_mode_is_refused() -> None:
    net = nn.Sequential(ConvNormAct(3, 4), RepConv(4, 4))
    with pytest.raises(InvalidInputError, match=r"call \.eval\(\) first"):
        reparameterize(net)
    net.eval()
    net[1].rbr_1x1.train()
    with pytest.raises(InvalidInputError, match=r"1\.rbr_1x1"):
        reparameterize(net)
    assert not net[1].deploy, "nothing may be touched before the check"


def test_batch_norm_without_running_statistics_is_refused() -> None:
    block = ConvNormAct(3, 4)
    block.bn = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(InvalidInputError, match="running statistics"):
        reparameterize(block.eval())


def test_a_batch_norm_that_fits_no_convolution_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="4 channels do not fit 5"):
        fuse_conv_norm(nn.Conv2d(3, 5, 1).eval(), nn.BatchNorm2d(4).eval())


def test_a_module_that_cannot_be_copied() -> None:
    block = ConvNormAct(3, 4).eval()
    block.kept = block.conv.weight * 2
    with pytest.raises(InvalidInputError, match=r"ConvNormAct cannot be copied.*inplace=True"):
        reparameterize(block)


def test_dtype_and_frozenness_of_what_remains() -> None:
    block = scramble(ConvNormAct(3, 4), 2).double()
    found = reparameterize(block)
    assert found.conv.weight.dtype == torch.float64
    assert not found.conv.weight.requires_grad and not found.bn.training


def test_names_of_the_package() -> None:
    """The functions go by their names, whatever module was imported before."""
    import vkconv.converters.exporting
    import vkconv.converters.reparameterization

    assert vkconv.converters.reparameterize is reparameterize
    assert callable(vkconv.converters.export)
