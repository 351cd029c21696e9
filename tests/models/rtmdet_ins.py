"""RTMDet-Ins (Lyu et al. 2022): each instance brings the weights of its own mask net.

CSPNeXt backbone and pyramid (5x5 depthwise convolutions, SiLU, channel attention), heads whose
convolutions all levels share but not the batch normalizations, masks by convolutions with computed
weights, one group for each instance: the batch is therefore fixed in an export.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.weights import build

STRIDES = (8, 16, 32)
WIDTHS = (24, 48, 96)
WIDTH = 32
PROTOTYPES = 8
KEPT = 6
#: inputs and outputs of the mask nets' three convolutions; two inputs are coordinates
MASK_LAYERS = ((PROTOTYPES + 2, 8), (8, 8), (8, 1))
MASK_WEIGHTS = sum(i * o + o for i, o in MASK_LAYERS)
Levels = list[torch.Tensor]


def rtmdet_ins(classes: int = 5, seed: int = 101) -> nn.Module:
    return build(lambda: RtmdetIns(classes), seed)


class Layer(nn.Sequential):
    """Convolution, batch normalization, SiLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, 1e-3),
            nn.SiLU(),
        )


class NextBlock(nn.Module):
    """3x3, then 5x5 for each channel and 1x1, around which the input may pass."""

    def __init__(self, channels: int, adds: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Layer(channels, channels, 3),
            Layer(channels, channels, 5, groups=channels),
            Layer(channels, channels),
        )
        self.adds = adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class CrossStage(nn.Module):
    """Half of the channels go through the blocks; both halves are joined, weighed and mixed."""

    def __init__(self, inputs: int, outputs: int, *, adds: bool, attends: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.main = nn.Sequential(Layer(inputs, half), NextBlock(half, adds))
        self.short = Layer(inputs, half)
        self.weigh: nn.Module | None = None
        if attends:
            self.weigh = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(outputs, outputs, 1), nn.Hardsigmoid()
            )
        self.mix = Layer(outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.main(x), self.short(x)], 1)
        if self.weigh is not None:
            joined = joined * self.weigh(joined)
        return self.mix(joined)


class PoolChain(nn.Module):
    """Maxima over 5, 9 and 13 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.narrow = Layer(channels, half)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.mix = Layer(4 * half, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow(x)
        return self.mix(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class Backbone(nn.Module):
    """Maps of stride 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Layer(3, 8, 3, 2), Layer(8, 8, 3), Layer(8, 16, 3), self.stage(16, 16)
        )
        pairs = zip((16, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.stages = nn.ModuleList(self.stage(i, o, pools=o == WIDTHS[-1]) for i, o in pairs)

    @staticmethod
    def stage(inputs: int, outputs: int, pools: bool = False) -> nn.Sequential:
        parts: list[nn.Module] = [Layer(inputs, outputs, 3, 2)]
        parts += [PoolChain(outputs)] if pools else []
        return nn.Sequential(*parts, CrossStage(outputs, outputs, adds=not pools, attends=True))

    def forward(self, x: torch.Tensor) -> Levels:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Down from the coarsest map to the finest and up again; ``WIDTH`` channels come out."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.narrow = nn.ModuleList([Layer(c, b), Layer(b, a)])
        self.down = nn.ModuleList([self.join(2 * b, b), self.join(2 * a, a)])
        self.shrink = nn.ModuleList([Layer(a, a, 3, 2), Layer(b, b, 3, 2)])
        self.up = nn.ModuleList([self.join(2 * a, b), self.join(2 * b, c)])
        self.out = nn.ModuleList(Layer(width, WIDTH, 3) for width in WIDTHS)

    @staticmethod
    def join(inputs: int, outputs: int) -> CrossStage:
        return CrossStage(inputs, outputs, adds=False, attends=False)

    def forward(self, maps: Levels) -> Levels:
        fine, middle, coarse = maps
        coarse = self.narrow[0](coarse)
        middle = self.down[0](torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        middle = self.narrow[1](middle)
        fine = self.down[1](torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1))
        middle = self.up[0](torch.cat([self.shrink[0](fine), middle], 1))
        coarse = self.up[1](torch.cat([self.shrink[1](middle), coarse], 1))
        return [out(x) for out, x in zip(self.out, (fine, middle, coarse), strict=True)]


class Branch(nn.Module):
    """Convolutions that all levels share, with batch normalizations of each level's own."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in self.convs) for _ in STRIDES
        )
        self.last = nn.Conv2d(WIDTH, outputs, 1)

    def forward(self, levels: Levels) -> torch.Tensor:
        """(batch, positions of all levels, outputs)"""
        results = []
        for x, norms in zip(levels, self.norms, strict=True):
            for conv, norm in zip(self.convs, norms, strict=True):
                x = F.silu(norm(conv(x)))
            results.append(self.last(x).flatten(2).transpose(1, 2))
        return torch.cat(results, 1)


class Prototypes(nn.Module):
    """All levels, as large as the finest, mixed into the maps that masks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3 * WIDTH, WIDTH, 1)
        self.body = nn.Sequential(
            Layer(WIDTH, WIDTH, 3), Layer(WIDTH, WIDTH, 3), nn.Conv2d(WIDTH, PROTOTYPES, 1)
        )

    def forward(self, levels: Levels) -> torch.Tensor:
        size = levels[0].shape[2:]
        larger = [F.interpolate(x, size=size, mode="bilinear") for x in levels[1:]]
        return self.body(self.mix(torch.cat([levels[0], *larger], 1)))


class RtmdetIns(nn.Module):
    """``(batch, 3, h, w)`` to boxes, scores, labels and masks of the best instances."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone, self.pyramid = Backbone(), Pyramid()
        self.classes, self.sides = Branch(classes), Branch(4)
        self.kernels, self.prototypes = Branch(MASK_WEIGHTS), Prototypes()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        levels = self.pyramid(self.backbone(images))
        points = [grid(x, stride) for x, stride in zip(levels, STRIDES, strict=True)]
        strides = [torch.full_like(p[:, :1], s) for p, s in zip(points, STRIDES, strict=True)]
        scores, labels = torch.max(self.classes(levels).sigmoid(), 2)
        scores, best = torch.topk(scores, KEPT, 1)
        labels = torch.gather(labels, 1, best)
        place, stride = torch.cat(points)[best], torch.cat(strides)[best]
        sides = torch.exp(0.5 * taken(self.sides(levels), best)) * stride
        boxes = torch.cat([place - sides[..., :2], place + sides[..., 2:]], -1)
        masks = self.masks(
            self.prototypes(levels), taken(self.kernels(levels), best), points[0], place, stride
        )
        return boxes, scores, labels, masks

    def masks(
        self,
        maps: torch.Tensor,
        kernels: torch.Tensor,
        points: torch.Tensor,
        place: torch.Tensor,
        stride: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, instances, h, w) in [0, 1]: every instance's net on the prototypes and the
        coordinates seen from it, all in one grouped convolution per layer."""
        batch, _, height, width = maps.shape
        seen_from = (place[:, :, None] - points) / (8 * stride[:, :, None])
        seen_from = seen_from.transpose(2, 3).reshape(batch, KEPT, 2, height, width)
        shared = maps[:, None].expand(-1, KEPT, -1, -1, -1)
        x = torch.cat([seen_from, shared], 2).reshape(1, -1, height, width)
        groups = batch * KEPT
        sizes = [i * o for i, o in MASK_LAYERS] + [o for _, o in MASK_LAYERS]
        parts = torch.split(kernels.reshape(groups, MASK_WEIGHTS), sizes, 1)
        for index, (inputs, outputs) in enumerate(MASK_LAYERS):
            # random heads give large weights: a third of them keeps the masks from saturating
            weight = 0.3 * parts[index].reshape(groups * outputs, inputs, 1, 1)
            bias = parts[len(MASK_LAYERS) + index].reshape(-1)
            x = F.conv2d(x, weight, bias, groups=groups)
            x = F.relu(x) if index < len(MASK_LAYERS) - 1 else x
        x = x.reshape(batch, KEPT, height, width)
        return F.interpolate(x, scale_factor=float(STRIDES[0]), mode="bilinear").sigmoid()


def taken(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The rows of each image that ``index`` names."""
    return torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[2]))


def grid(x: torch.Tensor, stride: int) -> torch.Tensor:
    """The points (x, y) in the image that a map's cells stand for, one a row."""
    rows = torch.arange(x.shape[2], dtype=torch.float32) * stride
    columns = torch.arange(x.shape[3], dtype=torch.float32) * stride
    ys, xs = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([xs.flatten(), ys.flatten()], 1)
