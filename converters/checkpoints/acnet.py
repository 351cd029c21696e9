"""A trained ResNet of ACNet's blocks (Ding et al. 2019), in its training or its deploy form.

The names are those of the authors' code: ``stage1.0.conv1.square_conv.weight``. A layer without
``square_conv`` or ``fused_conv`` is a plain convolution, as the stem and every 1x1 are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn

from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.checkpoints.shapes import Shapes
from vkconv.converters.checkpoints.state_dicts import fill, read_state_dict
from vkconv.errors import InvalidModelError

__all__ = ["AcNet", "AsymmetricBlock", "LayerSizes", "load_acnet"]

_STAGES = 4


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """One convolution with its normalization.

    asymmetric:  kernel of its vertical and horizontal branch; 0 for a plain convolution.
    deploy:      whether it is one convolution with a bias already.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    asymmetric: int
    deploy: bool


class AsymmetricBlock(nn.Module):
    """A kxk, a kx1 and a 1xk convolution, each normalized, summed; one convolution if deployed."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.deploy = sizes.deploy
        inputs, outputs, kernel, stride = sizes.inputs, sizes.outputs, sizes.kernel, sizes.stride
        if sizes.deploy:
            self.fused_conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
            return
        side = sizes.asymmetric
        shapes = {"square": (kernel, kernel), "ver": (side, 1), "hor": (1, side)}
        for name, shape in shapes.items():
            padding = (shape[0] // 2, shape[1] // 2)
            conv = nn.Conv2d(inputs, outputs, shape, stride, padding, bias=False)
            setattr(self, f"{name}_conv", conv)
            setattr(self, f"{name}_bn", nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)``."""
        if self.deploy:
            return self.fused_conv(x)
        square = self.square_bn(self.square_conv(x))
        return square + self.ver_bn(self.ver_conv(x)) + self.hor_bn(self.hor_conv(x))


class PlainLayer(nn.Module):
    """A convolution with its normalization, or with a bias if deployed."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            sizes.inputs,
            sizes.outputs,
            sizes.kernel,
            sizes.stride,
            sizes.kernel // 2,
            bias=sizes.deploy,
        )
        self.bn = nn.Identity() if sizes.deploy else nn.BatchNorm2d(sizes.outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class Residual(nn.Module):
    """Two or three layers; the input, through a 1x1 where sizes change, is added."""

    def __init__(self, convs: list[LayerSizes], shortcut: LayerSizes | None) -> None:
        super().__init__()
        self.depth = len(convs)
        for index, sizes in enumerate(convs):
            setattr(self, f"conv{index + 1}", _layer(sizes))
        self.shortcut = nn.Identity() if shortcut is None else _layer(shortcut)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index in range(self.depth):
            y = getattr(self, f"conv{index + 1}")(y)
            y = self.relu(y) if index < self.depth - 1 else y
        return self.relu(y + self.shortcut(x))


def _layer(sizes: LayerSizes) -> nn.Module:
    return AsymmetricBlock(sizes) if sizes.asymmetric else PlainLayer(sizes)


class AcNet(nn.Module):
    """``(b, 3, h, w)`` to ``(b, classes)``."""

    def __init__(self, stem: LayerSizes, stages: list[list[Residual]], classes: int) -> None:
        super().__init__()
        self.stage0 = nn.Sequential()
        self.stage0.add_module("conv1", _layer(stem))
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for index, blocks in enumerate(stages):
            setattr(self, f"stage{index + 1}", nn.Sequential(*blocks))
        self.gap = nn.AdaptiveAvgPool2d(1)
        last = stages[-1][-1]
        width = getattr(last, f"conv{last.depth}")
        self.linear = nn.Linear(_outputs(width), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.stage0(images)))
        for index in range(_STAGES):
            x = getattr(self, f"stage{index + 1}")(x)
        return self.linear(torch.flatten(self.gap(x), 1))


def _outputs(layer: nn.Module) -> int:
    convs = [part for part in layer.modules() if isinstance(part, nn.Conv2d)]
    return convs[0].out_channels


def load_acnet(weights: str | os.PathLike[str]) -> Checkpoint:
    """The network of a state_dict of either form: ResNet-18, -34, -50... by its shapes.

    Raises a VkconvError naming the key that is missing, left over or of another shape.
    """
    file = os.fspath(weights)
    state = read_state_dict(weights)
    shapes = Shapes(state, file, "ACNet ResNet")
    with torch.device("meta"):
        stem = _sizes(shapes, "stage0.conv1", 3, 2)
        stages, inputs = [], stem.outputs
        for stage in range(_STAGES):
            blocks = []
            for index in range(shapes.need(f"stage{stage + 1}")):
                stride = 2 if stage and index == 0 else 1
                block, inputs = _residual(shapes, f"stage{stage + 1}.{index}", inputs, stride)
                blocks.append(block)
            stages.append(blocks)
        classes = shapes.shape("linear.weight", 2)[0]
        network = AcNet(stem, stages, classes).eval()
    fill(network, state, file)
    return Checkpoint.of_classifier(network, classes, deploy=stem.deploy)


def _residual(shapes: Shapes, name: str, inputs: int, stride: int) -> tuple[Residual, int]:
    depth = 3 if _kind(shapes, f"{name}.conv3") else 2
    convs = []
    width = inputs
    # a bottleneck halves the map in its middle layer, a basic block in its first
    for index in range(depth):
        own = stride if index == depth - 2 else 1
        convs.append(_sizes(shapes, f"{name}.conv{index + 1}", width, own))
        width = convs[-1].outputs
    has_shortcut = _kind(shapes, f"{name}.shortcut")
    shortcut = _sizes(shapes, f"{name}.shortcut", inputs, stride) if has_shortcut else None
    if shortcut is None and (stride != 1 or width != inputs):
        raise InvalidModelError(
            f"the weights '{shapes.file}' lack '{name}.shortcut.conv.weight', without which "
            f"{inputs} channels cannot be added to {width}"
        )
    return Residual(convs, shortcut), width


#: where the weights of a layer lie, by its kind
_KINDS = ("square_conv", "fused_conv", "conv")


def _kind(shapes: Shapes, name: str) -> str:
    """Which of ``_KINDS`` a layer has; "" where there is no such layer."""
    return next((kind for kind in _KINDS if f"{name}.{kind}.weight" in shapes), "")


def _sizes(shapes: Shapes, name: str, inputs: int, stride: int) -> LayerSizes:
    kind = _kind(shapes, name) or "square_conv"
    outputs, _, kernel, _ = shapes.shape(f"{name}.{kind}.weight", 4)
    deploy = f"{name}.{kind}.bias" in shapes
    # ACNet's first code has 3x1 and 1x3 branches in every block, its later code kx1 and 1xk
    branch = f"{name}.ver_conv.weight"
    asymmetric = kernel if kind == "fused_conv" else 0
    if kind == "square_conv":
        asymmetric = shapes.shape(branch, 4)[2]
    return LayerSizes(inputs, outputs, kernel, stride, asymmetric, deploy)
