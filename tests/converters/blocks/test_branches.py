"""Blocks of branches, as training code has them, against their own train form in float64."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.converters.frozen import apart, convolutions, norms, scramble
from tests.converters.wild_blocks import ACBlock, DiverseBranchBlock, RepVGGBlock
from vkconv.converters.reparameterization import reparameterize

CONFIGURATIONS = 30
MAIN_CONVOLUTIONS = ("rbr_dense.conv", "square_conv", "dbb_origin.conv")


def a_rep_vgg(rng: random.Random) -> RepVGGBlock:
    groups, kernel = rng.randint(1, 4), rng.choice([1, 3, 3, 5])
    inputs = groups * rng.randint(1, 5)
    outputs = inputs if rng.random() < 0.6 else groups * rng.randint(1, 5)
    dilation = rng.randint(1, 3) if kernel > 1 else 1
    return RepVGGBlock(
        inputs, outputs, kernel, rng.randint(1, 2), dilation, groups, rng.random() < 0.3
    )


def an_ac_block(rng: random.Random) -> ACBlock:
    groups, kernel = rng.randint(1, 3), rng.choice([3, 3, 5])
    dilation = rng.choice([1, 1, 2])
    padding = dilation * (kernel // 2) + rng.choice([-1, 0, 0, 1])
    inputs, outputs = groups * rng.randint(1, 4), groups * rng.randint(1, 4)
    return ACBlock(
        inputs, outputs, kernel, rng.randint(1, 2), padding, dilation, groups, rng.random() < 0.5
    )


def a_diverse_block(rng: random.Random) -> DiverseBranchBlock:
    depthwise = rng.random() < 0.3
    groups, kernel = rng.randint(1, 3), rng.choice([1, 3, 3, 5])
    inputs, outputs = groups * rng.randint(2, 4), groups * rng.randint(2, 4)
    if depthwise:
        groups = outputs = inputs
    internal = rng.choice([None, inputs, 2 * inputs])
    return DiverseBranchBlock(
        inputs, outputs, kernel, rng.randint(1, 2), groups, internal, nn.SiLU()
    )


BLOCKS: dict[str, tuple[Callable[[random.Random], nn.Module], str]] = {
    "rep_vgg": (a_rep_vgg, "rbr_reparam"),
    "ac_block": (an_ac_block, "fused_conv"),
    "diverse": (a_diverse_block, "dbb_reparam"),
}


@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
@pytest.mark.parametrize("kind", BLOCKS)
def test_one_convolution_remains(kind: str, seed: int) -> None:
    make, result = BLOCKS[kind]
    torch.manual_seed(seed)
    block = scramble(make(random.Random(seed)), seed)
    main = next(part for name, part in block.named_modules() if name in MAIN_CONVOLUTIONS)
    x = torch.randn(2, main.in_channels, 13, 16)
    collapsed = reparameterize(block)
    # a squeeze-and-excitation behind the sum has two of its own
    behind = 2 if kind == "rep_vgg" and not isinstance(block.se, nn.Identity) else 0
    assert convolutions(collapsed) == 1 + behind and norms(collapsed) == 0
    assert isinstance(getattr(collapsed, result), nn.Conv2d) and collapsed.deploy
    assert apart(collapsed, block, x) <= 1e-10


def test_configurations_cover_what_matters() -> None:
    """The random draws above must not have left a kind of block out."""
    drawn = {kind: [make(random.Random(s)) for s in range(CONFIGURATIONS)]
             for kind, (make, _) in BLOCKS.items()}  # fmt: skip
    assert {b.rbr_identity is None for b in drawn["rep_vgg"]} == {True, False}
    assert {b.rbr_dense.conv.dilation[0] for b in drawn["rep_vgg"]} == {1, 2, 3}
    cropped = [b for b in drawn["ac_block"] if getattr(b, "crop", 0)]
    layered = [b for b in drawn["ac_block"] if not hasattr(b, "crop")]
    assert cropped and any(not isinstance(b.ver_conv_crop_layer, nn.Identity) for b in layered)
    names = {name for b in drawn["diverse"] for name, _ in b.dbb_1x1_kxk.named_children()}
    assert {"idconv1", "conv1"} <= names
    assert {hasattr(b, "dbb_1x1") for b in drawn["diverse"]} == {True, False}


def test_reflected_borders() -> None:
    block = RepVGGBlock(4, 4)
    block.rbr_dense.conv.padding_mode = "reflect"
    block.rbr_dense.conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    scramble(block, 0)
    assert apart(reparameterize(block), block, torch.randn(1, 4, 9, 8)) <= 1e-10


def left_alone(block: nn.Module, match: str) -> None:
    """The block stays, its numbers too, and a warning says why."""
    before = {name: value.clone() for name, value in block.state_dict().items()}
    net = nn.Sequential(nn.ReLU(), block).eval()
    with pytest.warns(RuntimeWarning, match=match) as caught:
        same = reparameterize(net)
    assert "'1'" in str(caught[0].message) and "\n" not in str(caught[0].message)
    after = same[1].state_dict()
    assert after.keys() >= {name for name in before if "bn" not in name}


def test_branches_that_do_not_line_up() -> None:
    block = scramble(RepVGGBlock(4, 4), 0)
    block.rbr_dense.conv.padding = (0, 0)
    left_alone(block, "line up")


def test_a_forward_without_a_deploy_path() -> None:
    class Forgetful(RepVGGBlock):
        def forward(self, x):
            return self.rbr_dense(x) + self.rbr_1x1(x)

    left_alone(scramble(Forgetful(4, 6), 0), "does not run in its fused form")


def test_a_forward_that_does_something_else() -> None:
    class Different(RepVGGBlock):
        def forward(self, x):
            if hasattr(self, "rbr_reparam"):
                return self.rbr_reparam(x)
            return self.rbr_dense(x) - self.rbr_1x1(x)

    left_alone(scramble(Different(4, 6), 0), "does not compute the same")


def test_a_branch_with_something_that_is_not_linear() -> None:
    block = scramble(RepVGGBlock(4, 4), 0)
    block.rbr_1x1.add_module("act", nn.ReLU())
    left_alone(block.eval(), "ReLU")


def test_a_shift_before_the_padding_norm() -> None:
    """BNAndPadLayer pads with BN(0); a bias before it makes the inside differ from that."""
    block = DiverseBranchBlock(4, 4, internal=6)
    block.dbb_1x1_kxk.conv1 = nn.Conv2d(4, 6, 1, bias=True)
    left_alone(scramble(block, 0), "shift precedes")


def test_a_pool_that_does_not_count_its_padding() -> None:
    block = DiverseBranchBlock(6, 6, groups=6)
    block.dbb_avg.avg = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    left_alone(scramble(block, 0), "does not count the padding")


def test_nothing_is_warned_of_where_all_is_folded() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reparameterize(scramble(RepVGGBlock(4, 4), 0))
