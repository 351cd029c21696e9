"""A net of the shape of YOLOv7-tiny (Wang, Bochkovskiy, Liao 2022), fused: 3.45 GFLOP at 320 x 320.

Convolutions with bias and leaky rectifier; ELAN blocks, a pyramid of max pools (SPP) in the middle,
a neck that goes up and down again (PAN), three heads: ``(batch, 3 * (5 + classes), h, w)``, raw.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build

SLOPE = 0.1
OUTPUTS = ("p3", "p4", "p5")


def yolov7_tiny(classes: int = 80, seed: int = 7) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(lambda: YoloV7Tiny(classes), seed, SLOPE)


class YoloV7Tiny(nn.Module):
    """``(batch, 3, h, w)``, h and w multiples of 32, to the three maps of stride 8, 16, 32."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = nn.Sequential(Layer(3, 32, 3, 2), Layer(32, 64, 3, 2), Elan(64, 32, 64))
        self.stage8 = nn.Sequential(nn.MaxPool2d(2), Elan(64, 64, 128))
        self.stage16 = nn.Sequential(nn.MaxPool2d(2), Elan(128, 128, 256))
        self.stage32 = nn.Sequential(nn.MaxPool2d(2), Elan(256, 256, 512), PoolPyramid(512, 256))
        self.up16 = UpAndJoin(256, 256, 128)
        self.up8 = UpAndJoin(128, 128, 64)
        self.down16 = DownAndJoin(64, 128, 128)
        self.down32 = DownAndJoin(128, 256, 256)
        self.heads = nn.ModuleList(
            nn.Sequential(
                Layer(channels, 2 * channels, 3), nn.Conv2d(2 * channels, 3 * (5 + classes), 1)
            )
            for channels in (64, 128, 256)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        c8 = self.stage8(self.stem(images))
        c16 = self.stage16(c8)
        c32 = self.stage32(c16)
        u16 = self.up16(c32, c16)
        n8 = self.up8(u16, c8)
        n16 = self.down16(n8, u16)
        n32 = self.down32(n16, c32)
        return tuple(head(n) for head, n in zip(self.heads, (n8, n16, n32), strict=True))


class Layer(nn.Module):
    """Convolution and leaky rectifier. Padding keeps ``ceil(size / stride)``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x))


class Elan(nn.Module):
    """Two 1x1 entries, a chain of two 3x3 behind the second; all four are joined and mixed."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.bypass = Layer(inputs, hidden)
        self.entry = Layer(inputs, hidden)
        self.first = Layer(hidden, hidden, 3)
        self.second = Layer(hidden, hidden, 3)
        self.mix = Layer(4 * hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bypass, entry = self.bypass(x), self.entry(x)
        first = self.first(entry)
        return self.mix(torch.cat([self.second(first), first, entry, bypass], 1))


class PoolPyramid(nn.Module):
    """Max pools of 5, 9 and 13 side by side, and a 1x1 path around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.around = Layer(inputs, outputs)
        self.before = Layer(inputs, outputs)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.after = Layer(4 * outputs, outputs)
        self.mix = Layer(2 * outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around, y = self.around(x), self.before(x)
        y = self.after(torch.cat([y, *(pool(y) for pool in self.pools)], 1))
        return self.mix(torch.cat([y, around], 1))


class UpAndJoin(nn.Module):
    """The coarse map, twice as large, beside the finer one of the backbone."""

    def __init__(self, coarse: int, fine: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(Layer(coarse, outputs), nn.Upsample(scale_factor=2))
        self.route = Layer(fine, outputs)
        self.elan = Elan(2 * outputs, outputs // 2, outputs)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        return self.elan(torch.cat([self.route(fine), self.narrow(coarse)], 1))


class DownAndJoin(nn.Module):
    """The fine map, half as large, beside the coarser one of the way up."""

    def __init__(self, fine: int, coarse: int, outputs: int) -> None:
        super().__init__()
        self.shrink = Layer(fine, outputs, 3, 2)
        self.elan = Elan(outputs + coarse, outputs // 2, outputs)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return self.elan(torch.cat([self.shrink(fine), coarse], 1))
