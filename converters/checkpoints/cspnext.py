"""CSPNeXt (Lyu et al. 2022), backbone and pyramid of RTMDet, under mmdetection's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from vkconv.converters.checkpoints.conv_module import ConvModule, DepthwiseSeparable
from vkconv.converters.checkpoints.shapes import Shapes

__all__ = ["CspNext", "CspNextPyramid", "CspNextSizes", "cspnext_sizes"]

Levels = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class CspNextSizes:
    """Widths and depths of backbone and pyramid.

    stem:     outputs of the stem's convolutions; the last is the width the first stage reads.
    widths:   outputs of each stage; the first halves the stem's map to stride 4.
    hidden:   inner channels of the blocks of each stage.
    blocks:   how many each stage has.
    kernel:   of the depthwise convolutions.
    width:    of the maps that leave the pyramid.
    pyramid_hidden, pyramid_blocks:  of the pyramid's joints, on the way down and on the way up.
    """

    stem: tuple[int, ...]
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    blocks: tuple[int, ...]
    kernel: int
    width: int
    pyramid_hidden: tuple[tuple[int, ...], tuple[int, ...]]
    pyramid_blocks: int

    @property
    def levels(self) -> int:
        """Maps that leave the backbone and the pyramid: of all stages but the first."""
        return len(self.widths) - 1


def cspnext_sizes(shapes: Shapes) -> CspNextSizes:
    """The sizes of weights under ``backbone.`` and ``neck.``."""
    stages = 0
    while shapes.count(f"backbone.stage{stages + 1}"):
        stages += 1
    shapes.need("backbone.stage1", 2, 2)
    shapes.need("backbone.stage2", 2, 2)
    shapes.need("neck.out_convs", stages - 1, stages - 1)
    # a stage is a convolution, in the last one pools, and the blocks
    blocks = [f"backbone.stage{s + 1}.{2 if s == stages - 1 else 1}" for s in range(stages)]
    joints = range(stages - 2)
    down = tuple(shapes.outputs(f"neck.top_down_blocks.{i}.main_conv.conv") for i in joints)
    up = tuple(shapes.outputs(f"neck.bottom_up_blocks.{i}.main_conv.conv") for i in joints)
    return CspNextSizes(
        tuple(shapes.outputs(f"backbone.stem.{i}.conv") for i in range(3)),
        tuple(shapes.outputs(f"backbone.stage{s + 1}.0.conv") for s in range(stages)),
        tuple(shapes.outputs(f"{name}.main_conv.conv") for name in blocks),
        tuple(shapes.need(f"{name}.blocks") for name in blocks),
        shapes.shape(f"{blocks[0]}.blocks.0.conv2.depthwise_conv.conv.weight", 4)[2],
        shapes.outputs("neck.out_convs.0.conv"),
        (down, up),
        shapes.need("neck.top_down_blocks.0.blocks"),
    )


class CspNextBlock(nn.Module):
    """3x3, then a large depthwise convolution and 1x1; the input may be added."""

    def __init__(self, channels: int, kernel: int, adds: bool) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels, 3)
        self.conv2 = DepthwiseSeparable(channels, channels, kernel)
        self.adds = adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.conv1(x))
        return y + x if self.adds else y


class ChannelAttention(nn.Module):
    """A factor for each channel, from the averages of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Conv2d(channels, channels, 1)
        self.act = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.act(self.fc(self.pool(x)))


class CspLayer(nn.Module):
    """Part of the channels go through the blocks; all are joined, perhaps weighed, and mixed."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int,
        blocks: int,
        kernel: int,
        *,
        adds: bool,
        attends: bool,
    ) -> None:
        super().__init__()
        self.main_conv = ConvModule(inputs, hidden)
        self.short_conv = ConvModule(inputs, hidden)
        self.blocks = nn.Sequential(*(CspNextBlock(hidden, kernel, adds) for _ in range(blocks)))
        self.attention: nn.Module = ChannelAttention(2 * hidden) if attends else nn.Identity()
        self.final_conv = ConvModule(2 * hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], 1)
        return self.final_conv(self.attention(joined))


class PoolChain(nn.Module):
    """Maxima over 5, 9 and 13 pixels beside the map itself (SPP)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels // 2)
        self.poolings = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.conv2 = ConvModule(4 * (channels // 2), channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.poolings)], 1))


class CspNext(nn.Module):
    """``(b, 3, h, w)`` to the maps of all stages but the first, from stride 8 on."""

    def __init__(self, sizes: CspNextSizes) -> None:
        super().__init__()
        first, second, third = sizes.stem
        self.stem = nn.Sequential(
            ConvModule(3, first, 3, 2), ConvModule(first, second, 3), ConvModule(second, third, 3)
        )
        self.stages = len(sizes.widths)
        inputs = third
        for stage, (width, hidden, blocks) in enumerate(
            zip(sizes.widths, sizes.hidden, sizes.blocks, strict=True)
        ):
            is_last = stage == self.stages - 1
            parts: list[nn.Module] = [ConvModule(inputs, width, 3, 2)]
            parts += [PoolChain(width)] if is_last else []
            # behind the pools, the input is not added
            layer = CspLayer(
                width, width, hidden, blocks, sizes.kernel, adds=not is_last, attends=True
            )
            setattr(self, f"stage{stage + 1}", nn.Sequential(*parts, layer))
            inputs = width

    def forward(self, x: torch.Tensor) -> Levels:
        x = self.stem(x)
        maps = []
        for stage in range(self.stages):
            x = getattr(self, f"stage{stage + 1}")(x)
            if stage:
                maps.append(x)
        return maps


class CspNextPyramid(nn.Module):
    """Down from the coarsest map to the finest and up again; all leave with one width."""

    def __init__(self, sizes: CspNextSizes) -> None:
        super().__init__()
        widths = sizes.widths[1:]
        down, up = sizes.pyramid_hidden
        pairs = list(pairwise(widths))
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.reduce_layers = nn.ModuleList(ConvModule(c, f) for f, c in reversed(pairs))
        self.top_down_blocks = nn.ModuleList(
            self._joint(2 * fine, fine, hidden, sizes)
            for (fine, _), hidden in zip(reversed(pairs), down, strict=True)
        )
        self.downsamples = nn.ModuleList(ConvModule(f, f, 3, 2) for f, _ in pairs)
        self.bottom_up_blocks = nn.ModuleList(
            self._joint(2 * fine, coarse, hidden, sizes)
            for (fine, coarse), hidden in zip(pairs, up, strict=True)
        )
        self.out_convs = nn.ModuleList(ConvModule(width, sizes.width, 3) for width in widths)

    @staticmethod
    def _joint(inputs: int, outputs: int, hidden: int, sizes: CspNextSizes) -> CspLayer:
        blocks, kernel = sizes.pyramid_blocks, sizes.kernel
        return CspLayer(inputs, outputs, hidden, blocks, kernel, adds=False, attends=False)

    def forward(self, maps: Sequence[torch.Tensor]) -> Levels:
        narrowed = []
        x = maps[-1]
        for reduce, joint, fine in zip(
            self.reduce_layers, self.top_down_blocks, reversed(maps[:-1]), strict=True
        ):
            x = reduce(x)
            narrowed.append(x)
            x = joint(torch.cat([self.upsample(x), fine], 1))
        levels = [x]
        for shrink, joint, coarse in zip(
            self.downsamples, self.bottom_up_blocks, reversed(narrowed), strict=True
        ):
            levels.append(joint(torch.cat([shrink(levels[-1]), coarse], 1)))
        return [out(x) for out, x in zip(self.out_convs, levels, strict=True)]
