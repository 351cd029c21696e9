"""The demo detector: both forms agree, shapes and decoding are what the docs say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vkconv.converters.demo_loss import complete_iou, detection_loss, match
from vkconv.converters.demo_net import ANCHORS, STRIDES, AnchorHead, DemoNet
from vkconv.converters.demo_scenes import CLASS_NAMES
from vkconv.converters.reparameterization import reparameterize


@pytest.fixture(scope="module")
def net() -> DemoNet:
    """A network with lively weights and statistics, in eval mode."""
    torch.manual_seed(0)
    built = DemoNet(len(CLASS_NAMES))
    for part in built.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.5
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.0, 0.3)
    with torch.no_grad():
        for _ in range(4):
            built(torch.rand(4, 3, 96, 96))
    return built.eval()


@torch.no_grad()
def test_deploy_form_equals_train_form(net: DemoNet) -> None:
    x = torch.rand(1, 3, 96, 128)
    collapsed = reparameterize(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in collapsed.modules())
    found = collapsed(x).double()
    wanted = net.double()(x.double())
    net.float()
    assert wanted.std(dim=1).min() > 1e-3, "the output must depend on the picture"
    assert float((found - wanted).square().sum() / wanted.square().sum()) <= 1e-10


@torch.no_grad()
def test_shapes(net: DemoNet) -> None:
    rows = net(torch.rand(2, 3, 64, 96))
    assert rows.shape == (2, 3 * (8 * 12 + 4 * 6 + 2 * 3), 5 + len(CLASS_NAMES))
    assert ((rows[..., 4:] >= 0) & (rows[..., 4:] <= 1)).all()


def test_small_enough_for_the_package() -> None:
    collapsed = reparameterize(DemoNet(len(CLASS_NAMES)).eval())
    assert 4 * sum(p.numel() for p in collapsed.parameters()) < 4e6


def test_decoding_follows_the_formula() -> None:
    head = AnchorHead((4, 4, 4), 2)
    raw = [torch.zeros(1, 3, 8 // s, 8 // s, 7) for s in (1, 2, 4)]
    raw[0][0, 1, 2, 5] = torch.tensor([0.3, -0.7, 0.2, 1.1, 2.0, -1.0, 0.5])
    rows = head.decode(raw)
    assert rows.shape == (1, 3 * (64 + 16 + 4), 7)

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    wanted = [
        (2 * sigmoid(0.3) - 0.5 + 5) * STRIDES[0],
        (2 * sigmoid(-0.7) - 0.5 + 2) * STRIDES[0],
        (2 * sigmoid(0.2)) ** 2 * ANCHORS[0][1][0],
        (2 * sigmoid(1.1)) ** 2 * ANCHORS[0][1][1],
        sigmoid(2.0), sigmoid(-1.0), sigmoid(0.5),
    ]  # fmt: skip
    assert torch.allclose(rows[0, 64 + 2 * 8 + 5], torch.tensor(wanted), atol=1e-5)


def test_complete_iou() -> None:
    box = torch.tensor([[10.0, 10.0, 8.0, 4.0]])
    assert complete_iou(box, box).item() == pytest.approx(1.0, abs=1e-5)
    shifted = torch.tensor([[14.0, 10.0, 8.0, 4.0]])
    # IoU 16 / 48, centres 4 apart, hull 12 x 4, equal shapes.
    assert complete_iou(box, shifted).item() == pytest.approx(1 / 3 - 16 / 160, abs=1e-5)
    assert complete_iou(box, torch.tensor([[99.0, 99.0, 8.0, 4.0]])).item() < 0


def test_match_uses_the_cell_and_the_two_nearest() -> None:
    targets = torch.tensor([[0.0, 1.0, 8 * 4.2, 8 * 3.9, 20.0, 20.0]])
    anchors = torch.tensor([[20.0, 20.0], [100.0, 100.0]])
    item, anchor, row, column, offset = match(targets, anchors, 8, 10, 10)
    assert set(item.tolist()) == {0} and set(anchor.tolist()) == {0}
    cells = set(zip(column.tolist(), row.tolist(), strict=True))
    assert cells == {(4, 3), (3, 3), (4, 4)}
    centre = torch.stack([column, row], dim=1) + offset
    assert torch.allclose(centre, torch.tensor([[4.2, 3.9]]).expand(3, 2), atol=1e-5)
    assert ((offset >= -0.5) & (offset <= 1.5)).all(), "must be reachable by the decoding"


def test_loss_falls_when_trained() -> None:
    torch.manual_seed(1)
    small = DemoNet(2, width=8)
    optimizer = torch.optim.Adam(small.parameters(), lr=3e-3)
    x = torch.rand(2, 3, 64, 64)
    targets = torch.tensor([[0.0, 0, 30, 30, 20, 24], [1.0, 1, 20, 40, 30, 18]])
    losses = []
    for _ in range(12):
        loss, parts = detection_loss(small(x), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert all(math.isfinite(part) for part in parts)
    assert losses[-1] < 0.7 * losses[0]


def test_loss_of_an_empty_batch_is_finite() -> None:
    raw = [torch.zeros(1, 3, 4 // s, 4 // s, 7, requires_grad=True) for s in (1, 2, 4)]
    loss, _ = detection_loss(raw, torch.zeros(0, 6))
    loss.backward()
    assert math.isfinite(loss.item())
