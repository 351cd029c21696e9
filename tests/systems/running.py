"""A module in its training form -> converter -> fused ONNX -> the device, compared with PyTorch.

    module --export: reparameterize, torch.onnx, fuse, compare--> file --InferenceSession--> outputs

What is asserted of every system: the file holds as many convolutions as the form for inference
computes, and no batch normalization beyond those that nothing can absorb; no node runs on the host;
all outputs are the training form's within an NMSE of 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.agreement import error, in_order
from tests.models.comparison import ALLOWED_NMSE, ON_DEVICE
from vkconv import InferenceSession
from vkconv.converters import DeformConv2d, export
from vkconv.converters.exporting.arguments import named_outputs
from vkconv.placement import Placement

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Layers:
    """How often a forward computes a convolution (transposed ones too) and a deformable one."""

    convolutions: int
    deformable: int


@dataclass(frozen=True)
class Ran:
    """What became of a system: nodes of the file by type, where each runs, the kernels in order."""

    nodes: Mapping[str, int]
    placement: Sequence[Placement]
    plan: str
    outputs: Mapping[str, Any]
    path: Path
    #: elements of all weights in the file
    parameters: int

    def fused(self, op_type: str) -> int:
        """Nodes of a type that cost no dispatch, being part of another's."""
        return sum(p.op_type == op_type and p.where == "fused" for p in self.placement)


def pictures(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(batch, 3, height, width) of 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, height, width, generator=generator)


@torch.no_grad()
def run_system(
    module: nn.Module,
    inputs: Inputs | torch.Tensor,
    folder: Path,
    *,
    deploy: nn.Module | None = None,
    remaining_norms: int = 0,
    split_offsets: int = 0,
    ranked: Sequence[str] = (),
    output_names: Sequence[str] | None = None,
) -> Ran:
    """Take ``module`` the whole way; AssertionError for whatever the module's docstring promises.

    deploy           the form for inference, built without the converter; without it the module has
                     as many convolutions as its form for inference
    remaining_norms  batch normalizations with no linear layer before them
    split_offsets    layers that tell offsets and modulation by one convolution, which become two
    ranked           outputs whose rows come in the order of the first of them, a score
    """
    torch.set_num_threads(1)
    feeds = {"images": inputs} if isinstance(inputs, torch.Tensor) else dict(inputs)
    expected = layers(module if deploy is None else deploy, feeds)
    wanted = named_outputs(module(**_arguments(module, feeds)), output_names)

    path = folder / "system.onnx"
    report = export(module, _arguments(module, feeds), path, output_names=output_names)
    assert not report.notes, report.notes
    nodes = report.nodes
    convolutions = nodes.get("Conv", 0) + nodes.get("ConvTranspose", 0)
    assert (convolutions, nodes.get("DeformConv", 0)) == (
        expected.convolutions + split_offsets,
        expected.deformable,
    )
    assert nodes.get("BatchNormalization", 0) == remaining_norms
    if remaining_norms:
        assert sum(isinstance(part, _BatchNorm) for part in module.modules()) > remaining_norms

    arrays = {name: tensor.numpy() for name, tensor in feeds.items()}
    with InferenceSession(str(path), strict=True) as session:
        names = [spec.name for spec in session.get_inputs()]
        assert len(names) == len(arrays)
        arrays = dict(zip(names, arrays.values(), strict=True))
        # what a kernel fails to write then holds wrong numbers
        session.run(None, {name: _other(array) for name, array in arrays.items()})
        found = dict(
            zip([o.name for o in session.get_outputs()], session.run(None, arrays), strict=True)
        )
        placement, plan = tuple(session.placement), session.describe_plan()
    elsewhere = [p for p in placement if p.where not in ON_DEVICE]
    assert not elsewhere, elsewhere
    oracle = {name: tensor.numpy() for name, tensor in wanted.items()}
    assert list(found) == list(oracle)
    compared = found | in_order(found, oracle, ranked) if ranked else found
    worst = max(error(name, compared[name], oracle[name]) for name in oracle)
    assert worst <= ALLOWED_NMSE
    print(f"NMSE {worst:.1e}, {dict(nodes)}")
    return Ran(nodes, placement, plan, found, path, report.fusion.after.parameters)


def _arguments(module: nn.Module, feeds: Inputs) -> dict[str, torch.Tensor]:
    """``feeds``, a single one under the name that the module's forward gives it."""
    if len(feeds) > 1:
        return dict(feeds)
    (name, *_) = signature(module.forward).parameters
    return {name: next(iter(feeds.values()))}


def _other(array: Any) -> Any:
    return 1 - array if np.issubdtype(array.dtype, np.floating) else np.zeros_like(array)


@torch.no_grad()
def layers(module: nn.Module, feeds: Inputs) -> Layers:
    """Counted while the module runs, below every class and function of torch."""
    counted = _Counting()
    with counted:
        module(**_arguments(module, feeds))
    # the plain module and the converter's own end in a convolution over what they have sampled
    by_hand = sum(
        hasattr(part, "p_conv") or isinstance(part, DeformConv2d) for part in module.modules()
    )
    return Layers(counted.convolutions - by_hand, counted.deformable + by_hand)


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = self.deformable = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        self.convolutions += name == "aten::convolution"
        self.deformable += name == "torchvision::deform_conv2d"
        return function(*args, **(kwargs or {}))
