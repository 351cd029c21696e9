"""Blocks that training needs and inference does not: each becomes one layer and means the same.

Thirty random forms of each, against torch in float64. The models are float64 too, so that what is
left is the algebra; one of each is looked at in float32, whose weights are rounded once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.acnet import ACBlock
from tests.models.dbb import DiverseBranchBlock
from tests.models.repvgg import RepVGGBlock
from tests.passes.rewriting import evaluate
from tests.passes.torch_blocks import fill, to_onnx
from vkconv.ir import Graph
from vkconv.onnx_reader import read_model
from vkconv.passes import fuse_linear, infer_and_fold

Random = np.random.Generator
Shape = tuple[int, ...]
CONFIGURATIONS = 30
ALLOWED_NMSE = 1e-10
torch.set_num_threads(1)


class Sum(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.parts[0](x)
        for part in self.parts[1:]:
            total = total + part(x)
        return total


class Joined(Sum):
    """Side by side; with ``beside`` added to that."""

    def __init__(self, *parts: nn.Module, beside: nn.Module | None = None) -> None:
        super().__init__(*parts)
        self.beside = beside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([part(x) for part in self.parts], 1)
        return y if self.beside is None else y + self.beside(x)


class Implicit(nn.Module):
    """YOLOv7's implicit layers: one number per channel is added before, one multiplied behind."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.before = nn.Parameter(torch.randn(1, inputs, 1, 1))
        self.behind = nn.Parameter(torch.randn(1, outputs, 1, 1) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.behind * self.conv(self.before + x)


class ScaleAndShift(nn.Module):
    """Factors and offsets, numbers and vectors, in a random order behind a convolution."""

    def __init__(self, conv: nn.Module, channels: int, order: list[int]) -> None:
        super().__init__()
        self.conv, self.order = conv, order
        self.factor = nn.Parameter(torch.randn(channels, 1, 1))
        self.offset = nn.Parameter(torch.randn(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        for step in self.order:
            if step == 0:
                y = y * self.factor
            elif step == 1:
                y = self.offset + y
            elif step == 2:
                y = y - self.offset
            else:
                y = y * 0.7
        return y


def one_of(random: Random, *values: int) -> int:
    return int(random.choice(values))


def channels(random: Random, groups: int) -> int:
    return groups * one_of(random, 1, 2, 3, 5)


def image(random: Random, inputs: int, least: int = 7) -> Shape:
    return (2, inputs, *(int(n) for n in random.integers(least, least + 6, 2)))


def conv2d(
    random: Random, inputs: int, outputs: int, groups: int = 1, bias: bool | None = None
) -> nn.Conv2d:
    """Any kernel, stride, padding and dilation."""
    kernel = (one_of(random, 1, 2, 3, 5), one_of(random, 1, 3))
    pads = (one_of(random, 0, 1, 2), one_of(random, 0, 1))
    stride, dilation = one_of(random, 1, 1, 2, 3), one_of(random, 1, 1, 2)
    given = bool(random.integers(2)) if bias is None else bias
    return nn.Conv2d(inputs, outputs, kernel, stride, pads, dilation, groups, given)


def conv_and_norm(random: Random) -> tuple[nn.Module, Shape]:
    groups, axes = one_of(random, 1, 1, 2, 4), one_of(random, 1, 2, 2, 3)
    inputs, outputs = channels(random, groups), channels(random, groups)
    if axes == 2:
        conv: nn.Module = conv2d(random, inputs, outputs, groups)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs)), image(random, inputs, 9)
    kind, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv3d, nn.BatchNorm3d))[axes == 3]
    kernel, bias = one_of(random, 1, 3), bool(random.integers(2))
    conv = kind(inputs, outputs, kernel, one_of(random, 1, 2), 1, groups=groups, bias=bias)
    return nn.Sequential(conv, norm(outputs)), (2, inputs, *(5,) * axes)


def norm_and_conv(random: Random) -> tuple[nn.Module, Shape]:
    """Exact where there is no padding."""
    groups = one_of(random, 1, 1, 2, 4)
    inputs, outputs = channels(random, groups), channels(random, groups)
    conv = conv2d(random, inputs, outputs, groups)
    conv.padding = (0, 0)
    return nn.Sequential(nn.BatchNorm2d(inputs), conv), image(random, inputs, 9)


def repvgg(random: Random) -> tuple[nn.Module, Shape]:
    groups, kernel = one_of(random, 1, 1, 2, 4), one_of(random, 3, 3, 5)
    inputs = channels(random, groups)
    outputs = inputs if random.integers(3) else channels(random, groups)
    stride, dilation = one_of(random, 1, 1, 2), one_of(random, 1, 1, 2)
    identity = bool(random.integers(3))
    block = RepVGGBlock(
        inputs, outputs, kernel, stride, groups, dilation, act=False, identity=identity
    )
    return block, image(random, inputs)


def acnet(random: Random) -> tuple[nn.Module, Shape]:
    """Paddings from none, where the branches crop, to more than half of the kernel."""
    groups, kernel = one_of(random, 1, 1, 2), one_of(random, 3, 3, 5, 7)
    inputs, outputs = channels(random, groups), channels(random, groups)
    padding = one_of(random, *range(kernel // 2 + 2))
    stride = one_of(random, 1, 1, 2)
    return ACBlock(inputs, outputs, kernel, stride, padding, groups), image(random, inputs)


def dbb(random: Random) -> tuple[nn.Module, Shape]:
    groups, kernel = one_of(random, 1, 1, 2), one_of(random, 3, 3, 5)
    inputs, outputs = channels(random, groups), channels(random, groups)
    inner = groups * one_of(random, 1, 2, 4)
    stride = one_of(random, 1, 1, 2)
    block = DiverseBranchBlock(inputs, outputs, kernel, stride, kernel // 2, groups, inner)
    return block, image(random, inputs)


def pointwise_and_conv(random: Random) -> tuple[nn.Module, Shape]:
    """1 x 1 before k x k: exact without padding, or without a bias between them."""
    inputs, inner, outputs = one_of(random, 1, 2, 3), one_of(random, 3, 5), one_of(random, 2, 4, 7)
    padded = bool(random.integers(2))
    first = nn.Conv2d(inputs, inner, 1, bias=not padded)
    second = conv2d(random, inner, outputs)
    if not padded:
        second.padding = (0, 0)
    layers = [first, second, nn.BatchNorm2d(outputs)]
    if not padded:
        layers.insert(1, nn.BatchNorm2d(inner))
    return nn.Sequential(*layers), image(random, inputs, 9)


def pointwise_and_pool(random: Random) -> tuple[nn.Module, Shape]:
    """Alone where means do not overlap: elsewhere it would take more work than the two layers."""
    inputs, outputs, size = one_of(random, 1, 3, 4), one_of(random, 2, 4, 7), one_of(random, 2, 3)
    layers = [nn.Conv2d(inputs, outputs, 1), nn.AvgPool2d(size), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers), image(random, inputs)


def concatenation(random: Random) -> tuple[nn.Module, Shape]:
    """Of one geometry; or with smaller kernels, where a large one is added to it anyway."""
    inputs = one_of(random, 1, 3, 4)
    kernel, stride = one_of(random, 1, 3, 5), one_of(random, 1, 1, 2)
    sizes = [one_of(random, 1, 2, 5) for _ in range(one_of(random, 2, 3, 4))]
    beside = None
    small = kernel > 1 and bool(random.integers(2))
    if small:
        outputs = sum(sizes)
        beside = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    parts = []
    for index, outputs in enumerate(sizes):
        size = 1 if small and index % 2 else kernel
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2)
        parts.append(nn.Sequential(conv, nn.BatchNorm2d(outputs)) if index % 2 else conv)
    return Joined(*parts, beside=beside), image(random, inputs)


def grouped_sum(random: Random) -> tuple[nn.Module, Shape]:
    """Convolutions of several groupings and kernels; the largest has the fewest groups."""
    groups, dilation = one_of(random, 1, 2, 3, 4), one_of(random, 1, 1, 2)
    inputs = groups * one_of(random, 2, 4)
    outputs, stride = inputs * one_of(random, 1, 1, 2), one_of(random, 1, 1, 2)
    parts = []
    for kernel, finer in ((5, 1), (3, 1), (3, 2), (1, 2), (1, inputs // groups)):
        if kernel < 5 and not random.integers(2):
            continue
        pad, count = dilation * (kernel // 2), groups * finer
        conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, count)
        parts.append(nn.Sequential(conv, nn.BatchNorm2d(outputs)))
    parts.append(nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, False))
    return Sum(*(parts[i] for i in random.permutation(len(parts)))), image(random, inputs, 11)


def scale_and_shift(random: Random) -> tuple[nn.Module, Shape]:
    groups = one_of(random, 1, 1, 2)
    inputs, outputs = channels(random, groups), channels(random, groups)
    order = [int(i) for i in random.integers(0, 4, one_of(random, 1, 2, 5))]
    conv = conv2d(random, inputs, outputs, groups)
    return ScaleAndShift(conv, outputs, order), image(random, inputs, 9)


def linear_and_norm(random: Random) -> tuple[nn.Module, Shape]:
    inputs, outputs = one_of(random, 1, 3, 8), one_of(random, 1, 4, 9)
    layers: list[nn.Module] = [nn.Linear(inputs, outputs, bias=bool(random.integers(2)))]
    layers.append(nn.BatchNorm1d(outputs))
    if random.integers(2):
        layers.insert(0, nn.BatchNorm1d(inputs))
    if random.integers(2):
        layers[0 if len(layers) == 2 else 1] = Sum(
            nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)
        )
    return nn.Sequential(*layers), (5, inputs)


def implicit(random: Random) -> tuple[nn.Module, Shape]:
    inputs, outputs = one_of(random, 1, 3, 8), one_of(random, 1, 4, 9)
    return Implicit(inputs, outputs), image(random, inputs)


def transposed(random: Random) -> tuple[nn.Module, Shape]:
    """ConvTranspose and BatchNormalization, and sums of two."""
    groups, stride = one_of(random, 1, 1, 2), one_of(random, 1, 2, 3)
    inputs, outputs = channels(random, groups), channels(random, groups)
    pad, more = one_of(random, 0, 1), one_of(random, 0, stride - 1)

    def layer(kernel: int, padding: int) -> nn.Module:
        conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, more, groups)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs))

    kernel = one_of(random, 3, 4, 5)
    first = layer(kernel, pad + 1)
    if random.integers(2):
        return first, image(random, inputs, 4)
    # two less all around: the same positions
    return Sum(first, layer(kernel - 2, pad)), image(random, inputs, 4)


BLOCKS: dict[str, Callable[[Random], tuple[nn.Module, Shape]]] = {
    make.__name__: make
    for make in (
        conv_and_norm,
        norm_and_conv,
        repvgg,
        acnet,
        dbb,
        pointwise_and_conv,
        pointwise_and_pool,
        concatenation,
        grouped_sum,
        scale_and_shift,
        linear_and_norm,
        implicit,
        transposed,
    )
}
#: the operator that is left, where it is not Conv
LAST = {"linear_and_norm": "Gemm", "transposed": "ConvTranspose"}


def fused(module: nn.Module, x: torch.Tensor) -> Graph:
    graph = read_model(to_onnx(module, x))
    infer_and_fold(graph)
    fuse_linear(graph)
    return graph


def nmse(graph: Graph, x: torch.Tensor, wanted: torch.Tensor) -> float:
    y = evaluate(graph.copy(), {"x": x.numpy()})[0].astype(np.float64)
    assert y.shape == wanted.shape
    return float(np.sum((y - wanted.numpy()) ** 2) / np.sum(wanted.numpy() ** 2))


@pytest.mark.parametrize("name", BLOCKS)
def test_one_layer_is_left(name: str, record_property) -> None:
    worst = 0.0
    for seed in range(CONFIGURATIONS):
        module, shape = BLOCKS[name](np.random.default_rng([seed, len(name)]))
        module = fill(module, seed)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        graph = fused(module, x)
        assert [n.op_type for n in graph.nodes] == [LAST.get(name, "Conv")], (seed, module)
        assert not any(n.domain for n in graph.nodes) and not graph.unfused
        named = {n for n, _ in graph.source_nodes}
        assert named - {"Identity:y"} == {graph.nodes[0].name, *graph.nodes[0].fused}
        assert len(graph.fusions) == (len(graph.nodes[0].fused) > 0)
        worst = max(worst, nmse(graph, x, module(x)))
    record_property("nmse", worst)
    assert worst <= ALLOWED_NMSE


@pytest.mark.parametrize("name", BLOCKS)
def test_in_float32(name: str) -> None:
    """Weights are rounded once; the reference then computes in float32."""
    module, shape = BLOCKS[name](np.random.default_rng([99, len(name)]))
    module = fill(module, 99)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    wanted = module(x.double())
    graph = fused(module.float(), x)
    assert [n.op_type for n in graph.nodes] == [LAST.get(name, "Conv")]
    assert all(v.dtype == "float32" for v in graph.values())
    assert nmse(graph, x, wanted) <= ALLOWED_NMSE
