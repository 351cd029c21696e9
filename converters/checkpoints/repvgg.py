"""A trained RepVGG (Ding et al. 2021), in its training or its deploy form."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn

from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.checkpoints.shapes import Shapes
from vkconv.converters.checkpoints.state_dicts import fill, read_state_dict
from vkconv.errors import InvalidInputError, InvalidModelError

__all__ = ["ARCHITECTURES", "Block", "BlockSizes", "RepVgg", "load_repvgg"]

_STAGES = 4
_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
#: blocks and widths of the paper's table 2, relative to 64, 128, 256, 512 channels
ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "A0": (_A, (0.75, 0.75, 0.75, 2.5)),
    "A1": (_A, (1, 1, 1, 2.5)),
    "A2": (_A, (1.5, 1.5, 1.5, 2.75)),
    "B0": (_B, (1, 1, 1, 2.5)),
    "B1": (_B, (2, 2, 2, 4)),
    "B2": (_B, (2.5, 2.5, 2.5, 5)),
    "B3": (_B, (3, 3, 3, 5)),
    "D2se": ((8, 14, 24, 1), (2.5, 2.5, 2.5, 5)),
}
#: the same with every second layer in so many groups
_GROUPED = {f"{name}g{groups}": groups for name in ("B1", "B2", "B3") for groups in (2, 4)}


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """One block: channels, stride, groups, channels inside its squeeze (0: none), and its form."""

    inputs: int
    outputs: int
    stride: int
    groups: int
    squeezed: int = 0
    deploy: bool = False


class SqueezeExcite(nn.Module):
    """A factor for each channel, from the averages of all (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        averages = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(torch.relu(self.down(averages))))


class Block(nn.Module):
    """A 3x3, a 1x1 and (where shapes allow) an identity branch, each normalized, summed."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.deploy = sizes.deploy
        inputs, outputs, stride, groups = sizes.inputs, sizes.outputs, sizes.stride, sizes.groups
        if sizes.deploy:
            self.rbr_reparam = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups)
        else:
            self.rbr_dense = _branch(inputs, outputs, 3, stride, groups)
            self.rbr_1x1 = _branch(inputs, outputs, 1, stride, groups)
            same = inputs == outputs and stride == 1
            self.rbr_identity = nn.BatchNorm2d(inputs) if same else None
        self.se = SqueezeExcite(outputs, sizes.squeezed) if sizes.squeezed else nn.Identity()
        self.nonlinearity = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)``."""
        if self.deploy:
            total = self.rbr_reparam(x)
        else:
            total = self.rbr_dense(x) + self.rbr_1x1(x)
            if self.rbr_identity is not None:
                total = total + self.rbr_identity(x)
        return self.nonlinearity(self.se(total))


def _branch(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    branch = nn.Sequential()
    branch.add_module(
        "conv",
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
    )
    branch.add_module("bn", nn.BatchNorm2d(outputs))
    return branch


class RepVgg(nn.Module):
    """``(b, 3, h, w)`` to ``(b, classes)``; a first block and four stages, each half as large."""

    def __init__(self, first: BlockSizes, stages: list[list[BlockSizes]], classes: int) -> None:
        super().__init__()
        self.stage0 = Block(first)
        for index, blocks in enumerate(stages):
            setattr(self, f"stage{index + 1}", nn.Sequential(*(Block(b) for b in blocks)))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(stages[-1][-1].outputs, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stage0(images)
        for index in range(_STAGES):
            x = getattr(self, f"stage{index + 1}")(x)
        return self.linear(torch.flatten(self.gap(x), 1))


def load_repvgg(weights: str | os.PathLike[str], *, arch: str | None = None) -> Checkpoint:
    """The network of a state_dict of either form; its sizes come from the shapes.

    arch:  what the weights have to be, such as "A0" or "B1g4"; None takes whatever they are.

    Raises a VkconvError naming the key that is missing, left over or of another shape.
    """
    file = os.fspath(weights)
    wanted = None if arch is None else _architecture(arch)
    state = read_state_dict(weights)
    shapes = Shapes(state, file, "RepVGG")
    first = _block(shapes, "stage0", 3, 2)
    stages: list[list[BlockSizes]] = []
    inputs = first.outputs
    for stage in range(_STAGES):
        blocks = []
        for index in range(shapes.need(f"stage{stage + 1}")):
            stride = 2 if index == 0 else 1
            blocks.append(_block(shapes, f"stage{stage + 1}.{index}", inputs, stride))
            inputs = blocks[-1].outputs
        stages.append(blocks)
    if wanted is not None:
        _compare(file, str(arch), wanted, stages)
    classes = shapes.shape("linear.weight", 2)[0]
    with torch.device("meta"):
        network = RepVgg(first, stages, classes).eval()
    fill(network, state, file)
    return Checkpoint.of_classifier(network, classes, deploy=first.deploy)


def _block(shapes: Shapes, name: str, inputs: int, stride: int) -> BlockSizes:
    deploy = f"{name}.rbr_reparam.weight" in shapes
    dense = f"{name}.rbr_reparam" if deploy else f"{name}.rbr_dense.conv"
    squeezed = shapes.outputs(f"{name}.se.down") if f"{name}.se.down.weight" in shapes else 0
    groups = shapes.groups(dense, inputs)
    outputs = shapes.outputs(dense)
    if outputs % groups:
        raise InvalidModelError(
            f"the weights '{shapes.file}': '{dense}.weight' has {outputs} outputs, which its "
            f"{groups} groups do not divide"
        )
    return BlockSizes(inputs, outputs, stride, groups, squeezed, deploy)


def _architecture(name: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Blocks and widths of the stages, and groups, of a name such as "B1g4"."""
    known = {plain.lower(): plain for plain in (*ARCHITECTURES, *_GROUPED)}
    plain = known.get(name.lower().removeprefix("repvgg-"))
    if plain is None:
        raise InvalidInputError(f"no RepVGG '{name}'; there are {', '.join(known.values())}")
    blocks, factors = ARCHITECTURES[plain.partition("g")[0]]
    widths = tuple(int((64 << stage) * factor) for stage, factor in enumerate(factors))
    return blocks, widths, _GROUPED.get(plain, 1)


def _compare(
    file: str,
    arch: str,
    wanted: tuple[tuple[int, ...], tuple[int, ...], int],
    stages: list[list[BlockSizes]],
) -> None:
    found = (
        tuple(len(blocks) for blocks in stages),
        tuple(blocks[0].outputs for blocks in stages),
        max(block.groups for blocks in stages for block in blocks),
    )
    if found != wanted:
        raise InvalidModelError(
            f"the weights '{file}' are of no RepVGG-{arch}: they have {found[0]} blocks of "
            f"{found[1]} channels in {found[2]} groups, and it has {wanted[0]} of {wanted[1]} in "
            f"{wanted[2]}"
        )
