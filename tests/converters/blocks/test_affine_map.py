"""The rules by which linear maps add and compose, each against the layers it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.converters.frozen import scramble
from vkconv.converters.blocks.affine_map import (
    AffineMap,
    NotFusable,
    identity_kernel,
    norm_scale_shift,
)
from vkconv.converters.blocks.proof import nmse
from vkconv.errors import InvalidInputError

X = torch.randn(2, 6, 10, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def conv(*args: int, **kwargs: object) -> nn.Conv2d:
    return nn.Conv2d(*args, **kwargs).double()


@torch.no_grad()
def agree(found: AffineMap, wanted: torch.Tensor) -> None:
    layer = found.layer(X)
    assert layer.bias is not None and not layer.weight.requires_grad
    assert nmse(layer(X), wanted) <= 1e-25


@torch.no_grad()
def test_a_layer_and_back() -> None:
    layer = conv(6, 4, 3, 2, 1, 2, groups=2, padding_mode="reflect")
    agree(AffineMap.of(layer), layer(X))


@torch.no_grad()
def test_scaled() -> None:
    layer, norm = conv(6, 4, 3, bias=False), scramble(nn.BatchNorm2d(4), 0).double()
    agree(AffineMap.of(layer).scaled(*norm_scale_shift(norm)), norm(layer(X)))


@torch.no_grad()
def test_identity_and_mean() -> None:
    agree(AffineMap.identity(6, 3, X), X)
    pool = nn.AvgPool2d((3, 2), (2, 1), (1, 1))
    agree(AffineMap.mean(pool, 6, 2, X), pool(X))
    pool = nn.AvgPool2d(2, 2, divisor_override=3)
    agree(AffineMap.mean(pool, 6, 1, X), pool(X))
    with pytest.raises(NotFusable, match="ceil_mode"):
        AffineMap.mean(nn.AvgPool2d(2, ceil_mode=True), 6, 1, X)


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_then(groups: int) -> None:
    first = conv(6, 8, 1, groups=groups)
    second = conv(8, 4, 3, 2, groups=groups)
    agree(AffineMap.of(first).then(AffineMap.of(second)), second(first(X)))
    padded = conv(8, 4, 3, padding=1, groups=groups)
    with pytest.raises(NotFusable, match="padding lies behind a shift"):
        AffineMap.of(first).then(AffineMap.of(padded))
    first.bias.zero_()
    agree(AffineMap.of(first).then(AffineMap.of(padded)), padded(first(X)))


def test_then_refuses_what_it_cannot() -> None:
    with pytest.raises(NotFusable, match="not 1x1"):
        AffineMap.of(conv(6, 6, 3)).then(AffineMap.of(conv(6, 6, 1)))
    with pytest.raises(NotFusable, match="different groups"):
        AffineMap.of(conv(6, 6, 1)).then(AffineMap.of(conv(6, 6, 1, groups=2)))


@torch.no_grad()
def test_plus_lines_kernels_up() -> None:
    frame = conv(6, 4, 5, 2, 4, 2)
    for other in (conv(6, 4, 1, 2), conv(6, 4, (1, 5), 2, (0, 4), 2), conv(6, 4, 3, 2, 2, 2)):
        agree(AffineMap.of(frame).plus(AffineMap.of(other)), frame(X) + other(X))


@torch.no_grad()
def test_a_negative_padding_cuts() -> None:
    frame, other = conv(6, 4, 3), conv(6, 4, 1)
    cut = AffineMap.of(other).padded(-1)
    agree(AffineMap.of(frame).plus(cut), frame(X) + other(F.pad(X, [-1] * 4)))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (conv(6, 4, 1, 1), "do not line up"),
        (conv(6, 4, 3, padding=2, dilation=2), "do not line up"),
        (conv(6, 4, 5, padding=2), "do not line up"),
        (conv(6, 4, 3, 2, padding=1), "stride or groups"),
        (conv(6, 4, 3, padding=1, groups=2), "stride or groups"),
        (conv(6, 4, 3, padding=1, padding_mode="circular"), "padding mode"),
    ],
)
def test_plus_refuses_what_does_not_line_up(other: nn.Conv2d, reason: str) -> None:
    frame = AffineMap.of(conv(6, 4, 3, padding=1))
    if reason == "do not line up" and other.kernel_size == (1, 1):
        frame = AffineMap.of(conv(6, 4, 3))
    with pytest.raises(NotFusable, match=reason):
        frame.plus(AffineMap.of(other))


def test_padding_as_a_word() -> None:
    with pytest.raises(NotFusable, match="'same'"):
        AffineMap.of(conv(6, 4, 3, padding="same"))


def test_identity_kernel_of_two_channels_a_group() -> None:
    kernel = identity_kernel(4, 2, (3, 3), X)
    assert kernel.shape == (4, 2, 3, 3) and kernel.sum() == 4
    assert [kernel[i, i % 2, 1, 1].item() for i in range(4)] == [1] * 4


def test_statistics_that_are_not_there() -> None:
    with pytest.raises(InvalidInputError, match="track_running_stats"):
        norm_scale_shift(nn.BatchNorm2d(4, track_running_stats=False))
