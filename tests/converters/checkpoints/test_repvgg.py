"""RepVGG from the authors' names: another writing of the network makes the weights."""

from __future__ import annotations

import pytest
import torch

from tests.converters.checkpoints.wild_weights import nmse, pictures
from tests.models.repvgg import repvgg_small
from vkconv.converters import reparameterize
from vkconv.converters.checkpoints.repvgg import ARCHITECTURES, BlockSizes, RepVgg, load_repvgg
from vkconv.converters.checkpoints.repvgg import _architecture as architecture
from vkconv.errors import InvalidInputError, InvalidModelError


@pytest.fixture
def weights(tmp_path):
    def write(state):
        torch.save(state, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return write


@pytest.mark.parametrize("deploy", [False, True])
def test_both_forms(weights, deploy: bool) -> None:
    net = repvgg_small(deploy)
    loaded = load_repvgg(weights(net.state_dict()))
    x = pictures(2, 3, 64, 64)
    assert nmse(loaded.module(x), net(x)) <= 1e-14
    assert (loaded.head, loaded.class_count, loaded.outputs) == ("", 10, ("logits",))
    assert ("deploy" in loaded.notes[0]) == deploy


def test_squeeze_and_excitation(weights) -> None:
    """What D2se has beyond the others."""
    state = repvgg_small().state_dict()
    generator = torch.Generator().manual_seed(1)
    for name, shape in {"down": (4, 16, 1, 1), "up": (16, 4, 1, 1)}.items():
        state[f"stage2.1.se.{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"stage2.1.se.{name}.bias"] = torch.randn(shape[0], generator=generator)
    block = load_repvgg(weights(state)).module.stage2[1]
    x = torch.randn(1, 16, 6, 6, generator=generator)
    total = block.rbr_dense(x) + block.rbr_1x1(x) + block.rbr_identity(x)
    means = total.double().mean((2, 3))
    down, up = (state[f"stage2.1.se.{name}.weight"].double()[:, :, 0, 0] for name in ("down", "up"))
    shifts = [state[f"stage2.1.se.{name}.bias"].double() for name in ("down", "up")]
    factor = ((means @ down.T + shifts[0]).relu() @ up.T + shifts[1]).sigmoid()
    assert nmse(block(x), (total * factor[..., None, None]).relu()) <= 1e-10


def test_groups_come_from_the_shapes(weights) -> None:
    """As in B1g4, every second layer."""
    widths = (8, 8, 12, 16)
    for deploy in (False, True):
        sizes, inputs = [], 8
        for width in widths:
            blocks = [(inputs, 2, 1), (width, 1, 4)]
            sizes.append([BlockSizes(i, width, s, g, 0, deploy) for i, s, g in blocks])
            inputs = width
        net = RepVgg(BlockSizes(3, 8, 2, 1, 0, deploy), sizes, 5).eval().requires_grad_(False)
        loaded = load_repvgg(weights(net.state_dict())).module
        x = pictures(1, 3, 64, 64)
        assert nmse(loaded(x), net(x)) <= 1e-14
        dense = loaded.stage3[1].rbr_reparam if deploy else loaded.stage3[1].rbr_dense.conv
        assert dense.groups == 4


def test_reparameterized_it_has_one_convolution_a_block(weights) -> None:
    loaded = load_repvgg(weights(repvgg_small().state_dict()))
    fused = reparameterize(loaded.module)
    x = pictures(1, 3, 64, 64)
    assert nmse(fused(x), loaded.module(x)) <= 1e-10
    kinds = [type(part).__name__ for part in fused.modules()]
    assert kinds.count("BatchNorm2d") == 0
    assert kinds.count("Conv2d") == kinds.count("Block") == 7


def test_architectures_of_the_paper() -> None:
    """Widths of table 2."""
    assert architecture("A0") == ((2, 4, 14, 1), (48, 96, 192, 1280), 1)
    assert architecture("RepVGG-B1g4") == ((4, 6, 16, 1), (128, 256, 512, 2048), 4)
    assert architecture("b3") == ((4, 6, 16, 1), (192, 384, 768, 2560), 1)
    assert all(architecture(name)[2] == 1 for name in ARCHITECTURES)


def test_the_architecture_is_checked(weights) -> None:
    path = weights(repvgg_small().state_dict())
    with pytest.raises(InvalidModelError, match=r"no RepVGG-A0: they have \(1, 2, 2, 1\) blocks"):
        load_repvgg(path, arch="A0")
    with pytest.raises(InvalidInputError, match="no RepVGG 'A7'; there are A0, A1"):
        load_repvgg(path, arch="A7")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("stage2.1.rbr_1x1.bn.bias"), "lack 'stage2.1.rbr_1x1.bn.bias'"),
        (lambda s: s.pop("stage0.rbr_dense.conv.weight"), "lack 'stage0.rbr_dense.conv.weight'"),
        (lambda s: s.pop("linear.weight"), "lack 'linear.weight'"),
        (lambda s: [s.pop(k) for k in list(s) if "stage3" in k], "have 0 parts 'stage3.0'"),
        (lambda s: s.update({"stage5.weight": torch.ones(1)}), "have 'stage5.weight'"),
        (
            lambda s: s.update({"stage1.0.rbr_dense.conv.weight": torch.ones(8, 3, 3, 3)}),
            "reads 3 channels",
        ),
    ],
)
def test_weights_that_do_not_fit(weights, change, message: str) -> None:
    state = repvgg_small().state_dict()
    change(state)
    with pytest.raises(InvalidModelError, match=message):
        load_repvgg(weights(state))
