"""RepVGG (Ding et al. 2021): in training every layer is k x k + 1 x 1 + identity, each normalised.

The names of the parts are those of the authors' published weights. ``deploy`` builds the form for
inference, in which every layer is one convolution.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build

#: layers of the four stages, and their channels at width 1
DEPTHS = (2, 4, 14, 1)
WIDTHS = (64, 128, 256, 512)


def repvgg_a0(deploy: bool = False, seed: int = 40) -> nn.Module:
    """RepVGG-A0: widths 0.75, and 2.5 for the last stage; 1000 classes."""
    return build(lambda: RepVGG(DEPTHS, (0.75, 0.75, 0.75, 2.5), deploy), seed)


def repvgg_small(deploy: bool = False, seed: int = 41) -> nn.Module:
    """A net of the same structure that takes milliseconds."""
    return build(lambda: RepVGG((1, 2, 2, 1), (0.125,) * 4, deploy, classes=10), seed)


class RepVGG(nn.Module):
    """``(batch, 3, h, w)`` to ``(batch, classes)``; the first layer of every stage halves."""

    def __init__(
        self,
        depths: tuple[int, ...],
        factors: tuple[float, ...],
        deploy: bool = False,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        channels = min(64, int(64 * factors[0]))
        self.stage0 = RepVGGBlock(3, channels, stride=2, deploy=deploy)
        for index, (depth, width, factor) in enumerate(zip(depths, WIDTHS, factors, strict=True)):
            outputs = int(width * factor)
            layers = []
            for layer in range(depth):
                layers.append(
                    RepVGGBlock(channels, outputs, stride=1 if layer else 2, deploy=deploy)
                )
                channels = outputs
            setattr(self, f"stage{index + 1}", nn.Sequential(*layers))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images
        for index in range(5):
            x = getattr(self, f"stage{index}")(x)
        return self.linear(torch.flatten(self.gap(x), 1))


class RepVGGBlock(nn.Module):
    """act(BN(k x k (x)) + BN(1 x 1 (x)) + BN(x)); the last only where it fits."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        deploy: bool = False,
        act: bool = True,
        identity: bool = True,
    ) -> None:
        super().__init__()
        pad = dilation * (kernel // 2)
        self.deploy = deploy
        self.act = nn.ReLU() if act else nn.Identity()
        if deploy:
            self.rbr_reparam = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups)
            return
        fits = identity and inputs == outputs and stride == 1
        self.rbr_identity = nn.BatchNorm2d(inputs) if fits else None
        self.rbr_dense = normalised(
            nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=False)
        )
        self.rbr_1x1 = normalised(
            nn.Conv2d(inputs, outputs, 1, stride, 0, groups=groups, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.deploy:
            return self.act(self.rbr_reparam(x))
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return self.act(self.rbr_dense(x) + self.rbr_1x1(x) + identity)


def normalised(conv: nn.Conv2d) -> nn.Sequential:
    """The convolution with a batch normalization behind it, under the published names."""
    parts = nn.Sequential()
    parts.add_module("conv", conv)
    parts.add_module("bn", nn.BatchNorm2d(conv.out_channels))
    return parts
