"""Layers of the plain deformable convolution, exported; what a pass refused of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tests.models.export import export
from tests.passes.plain_deform import PlainDeformConv2d
from tests.passes.rewriting import evaluate
from vkconv.ir import Array, Graph, Unfused
from vkconv.onnx_reader import read_model
from vkconv.passes import infer_and_fold
from vkconv.passes.recognise_deform_conv import KIND


def deformable(*arguments: Any, **more: Any) -> PlainDeformConv2d:
    """A layer with statistics that matter, whose offsets reach beyond the map."""
    layer = PlainDeformConv2d(*arguments, **more)
    with torch.no_grad():
        layer.p_conv.weight.mul_(2)
        layer.p_conv.bias.normal_(0, 2)
        layer.bn.running_mean.normal_(0, 0.5)
        layer.bn.running_var.uniform_(0.5, 2)
        layer.bn.weight.uniform_(0.5, 1.5)
        layer.bn.bias.normal_(0, 0.5)
    return layer.eval()


class Layer(nn.Module):
    """One layer, and how its offsets are made of the convolution's output."""

    def __init__(
        self, change: Callable[[Tensor], Tensor] = lambda p: p, shows: bool = False, **more: Any
    ) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.layer = deformable(2, 3, **{"modulated": True, **more})
        self.change, self.shows = change, shows
        made = type(self.layer).offsets
        self.layer.offsets = lambda x: change(made(self.layer, x))

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return (y, self.layer.p_conv(x)) if self.shows else y


def exported(tmp_path: Path, module: nn.Module, outputs: int = 1) -> onnx.ModelProto:
    names = [f"y{i}" for i in range(outputs)]
    path = export(module.eval(), (2, 2, 7, 6), tmp_path / "m.onnx", opset=20, outputs=names)
    return onnx.load(path)


def same_outputs(proto: onnx.ModelProto, graph: Graph) -> None:
    """The rewritten graph computes what the untouched one does."""
    random = np.random.default_rng(5)
    feeds = {v.name: random.standard_normal(v.dims).astype(v.dtype) for v in graph.inputs}
    plain = read_model(proto)
    infer_and_fold(plain)
    for actual, expected in zip(evaluate(graph.copy(), feeds), evaluate(plain, feeds), strict=True):
        assert nmse(actual, expected) <= 1e-10


def refused(graph: Graph) -> list[Unfused]:
    return [u for u in graph.unfused if u.kind == KIND]


def nmse(actual: Array, expected: Array) -> float:
    assert actual.shape == expected.shape
    power = float(np.mean(expected.astype(np.float64) ** 2))
    return float(np.mean((actual.astype(np.float64) - expected) ** 2)) / power
