"""ACNet from the authors' names, against the same network written with functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.converters.checkpoints.wild_weights import Tensor, Weights, nmse, pictures
from vkconv.converters import reparameterize
from vkconv.converters.checkpoints.acnet import load_acnet
from vkconv.errors import InvalidModelError

CLASSES = 6


def plain(w: Weights, x: Tensor, name: str, outputs: int, *how: int) -> Tensor:
    return w.norm(w.conv(x, f"{name}.conv", outputs, *how), f"{name}.bn")


def asymmetric(w: Weights, x: Tensor, name: str, outputs: int, stride: int = 1) -> Tensor:
    parts = {"square": (3, 3), "ver": (3, 1), "hor": (1, 3)}
    return sum(
        w.norm(w.conv(x, f"{name}.{part}_conv", outputs, kernel, stride), f"{name}.{part}_bn")
        for part, kernel in parts.items()
    )


def network(w: Weights, images: Tensor, *, bottleneck: bool) -> Tensor:
    x = F.relu(plain(w, images.double(), "stage0.conv1", 8, 7, 2))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, (width, blocks) in enumerate(((8, 2), (12, 1), (16, 1), (20, 1))):
        outputs = width * 2 if bottleneck else width
        for block in range(blocks):
            name = f"stage{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            same = x
            if stride != 1 or x.shape[1] != outputs:
                same = plain(w, x, f"{name}.shortcut", outputs, 1, stride)
            if bottleneck:
                y = F.relu(plain(w, x, f"{name}.conv1", width))
                y = F.relu(asymmetric(w, y, f"{name}.conv2", width, stride))
                y = plain(w, y, f"{name}.conv3", outputs)
            else:
                y = F.relu(asymmetric(w, x, f"{name}.conv1", width, stride))
                y = asymmetric(w, y, f"{name}.conv2", width)
            x = F.relu(y + same)
    weight = w("linear.weight", CLASSES, x.shape[1])
    return F.linear(x.mean((2, 3)), weight, w.bias("linear.bias", CLASSES))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_both_kinds_of_blocks(tmp_path, bottleneck: bool) -> None:
    w = Weights(2)
    x = pictures(2, 3, 64, 96)
    expected = network(w, x, bottleneck=bottleneck)
    torch.save(w.state, tmp_path / "w.pth")
    loaded = load_acnet(tmp_path / "w.pth")
    assert nmse(loaded.module(x), expected) <= 1e-10
    assert (loaded.head, loaded.class_count) == ("", CLASSES)
    # and what has been reparameterized is read as well
    fused = reparameterize(loaded.module)
    state = {k: v for k, v in fused.state_dict().items() if "bn" not in k}
    kinds = [type(part).__name__ for part in fused.modules()]
    assert "BatchNorm2d" not in kinds and any(".fused_conv." in key for key in state)
    torch.save(state, tmp_path / "deploy.pth")
    again = load_acnet(tmp_path / "deploy.pth")
    assert "deploy" in again.notes[0]
    assert nmse(again.module(x), expected) <= 1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("stage1.0.conv1.hor_bn.bias"), "lack 'stage1.0.conv1.hor_bn.bias'"),
        (lambda s: s.pop("stage1.0.conv2.ver_conv.weight"), "lack 'stage1.0.conv2.ver_conv.weig"),
        (lambda s: s.pop("stage0.conv1.conv.weight"), "lack 'stage0.conv1.square_conv.weight'"),
        (
            lambda s: [s.pop(k) for k in list(s) if "stage2.0.shortcut" in k],
            "lack 'stage2.0.shortcut.conv.weight', without which 8 channels",
        ),
        (lambda s: s.update({"x": torch.ones(1)}), "have 'x', for which"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message: str) -> None:
    w = Weights(2)
    network(w, pictures(1, 3, 32, 32), bottleneck=False)
    change(w.state)
    torch.save(w.state, tmp_path / "w.pth")
    with pytest.raises(InvalidModelError, match=message):
        load_acnet(tmp_path / "w.pth")
