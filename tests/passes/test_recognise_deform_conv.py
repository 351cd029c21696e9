"""Traced deformable convolution becomes DeformConv where it is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.models.export import Exporter, export
from tests.passes.rewriting import operators, rewritten
from tests.passes.traced_layers import Layer, deformable, exported, nmse, refused, same_outputs
from tests.small_models import floats
from vkconv import InferenceSession
from vkconv.onnx_reader import read_model
from vkconv.passes import fuse_linear, infer_and_fold
from vkconv.passes.recognise_deform_conv import KIND
from vkconv.passes.recognise_deform_conv import recognise_deform_conv as PASS

#: kernel, padding, stride, modulated, with normalisation and activation
LAYERS = (
    (3, 1, 1, False, False),
    (3, 1, 2, True, True),
    (5, 2, 1, True, False),
    (3, 2, 1, False, True),
    (5, 2, 2, False, True),
    (5, 1, 1, True, True),
    (3, 2, 2, True, False),
    (1, 1, 1, True, False),
)


class Net(nn.Module):
    """All kinds of layer in a row, with a plain convolution before."""

    def __init__(self, layers: Sequence[tuple[int, int, int, bool, bool]]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(deformable(4, 4, *layer) for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        return x


Exported = Callable[..., tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def net_file(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Nets by exporter, layers and whether sizes are open: each exported once."""
    folder = tmp_path_factory.mktemp("nets")

    @cache
    def file(exporter: Exporter, layers: Any, dynamic: bool) -> tuple[nn.Module, Path]:
        module = Net(layers).eval()
        shape = (2, 3, 64, 96) if dynamic else (1, 3, 32, 48)
        path = folder / f"{exporter}{len(layers)}{dynamic}.onnx"
        return module, export(module, shape, path, exporter=exporter, opset=20, dynamic=dynamic)

    return file


@pytest.mark.parametrize(
    ("exporter", "layers", "dynamic"),
    [
        ("legacy", LAYERS, False),
        ("legacy", LAYERS[:4], True),
        ("dynamo", LAYERS[1:2], False),
        ("dynamo", LAYERS[1:2], True),
    ],
    ids=["legacy", "legacy-dynamic", "dynamo", "dynamo-dynamic"],
)
def test_every_layer_runs_as_one_dispatch(
    net_file: Exported, exporter: Exporter, layers: Any, dynamic: bool
) -> None:
    net, path = net_file(exporter, layers, dynamic)
    x = floats(*((3, 3, 32, 64) if dynamic else (1, 3, 32, 48)), seed=1)
    with InferenceSession(path) as session:
        [name] = [i.name for i in session.get_inputs()]
        [actual] = session.run(None, {name: x})
        kernels = Counter(line.split()[1] for line in dispatch_lines(session))
        assert not [p for p in session.placement if p.where == "host"]
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    assert nmse(actual, expected) <= 1e-6
    assert kernels["deform_conv2d"] == len(layers), kernels
    assert not {"gather_elements", "gather", "gather_nd"} & set(kernels)


@pytest.mark.parametrize(
    ("layers", "dynamic"), [(LAYERS, False), (LAYERS[:4], True)], ids=["static", "dynamic"]
)
def test_what_is_reported(net_file: Exported, layers: Any, dynamic: bool) -> None:
    _, path = net_file("legacy", layers, dynamic)
    graph = read_model(path)
    infer_and_fold(graph)
    before = {n.name for n in graph.nodes}
    fuse_linear(graph)
    made = [n for n in graph.nodes if n.op_type == "DeformConv"]
    assert len(made) == len(layers) and not refused(graph)
    fusions = [f for f in graph.fusions if f.kind == KIND]
    assert [f.into for f in fusions] == [n.name for n in made]
    for node_, fusion, (kernel, padding, stride, modulated, _) in zip(
        made, fusions, layers, strict=True
    ):
        assert node_.opset >= 19 and not node_.domain
        assert node_.attributes["strides"] == (stride, stride)
        assert node_.attributes["pads"][:2] == (padding - 1 + (kernel - 1) // 2,) * 2
        assert (len(node_.inputs) == 5) == modulated
        assert len(fusion.nodes) > 60 and set(fusion.nodes) <= before
        assert set(fusion.nodes) <= set(node_.fused)
    assert set(operators(graph)) <= {"Conv", "Sigmoid", "Mul", "DeformConv", "BatchNormalization"}
    assert not {n.name for n in graph.nodes} - before


def test_offset_weights_are_reordered(traced_layer: onnx.ModelProto) -> None:
    graph = rewritten(traced_layer, PASS)
    assert operators(graph) == ["Conv", "Conv", "Sigmoid", "DeformConv"]
    [deform] = [n for n in graph.nodes if n.op_type == "DeformConv"]
    offset = deform.inputs[2]
    assert offset is not None and offset.producer is not None
    assert offset.producer.op_type == "Conv"
    same_outputs(traced_layer, graph)


@pytest.mark.parametrize(
    "module",
    [Layer(torch.tanh), Layer(lambda p: 2 * torch.sigmoid(p) - 1), Layer(shows=True)],
    ids=["through tanh", "through a chain", "read elsewhere"],
)
def test_other_offsets_are_gathered_into_order(module: Layer, tmp_path: Path) -> None:
    proto = exported(tmp_path, module, 2 if module.shows else 1)
    graph = rewritten(proto, PASS)
    assert operators(graph)[-2:] == ["Gather", "DeformConv"]
    same_outputs(proto, graph)


class Patches(nn.Module):
    """The patches leave the model as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = deformable(2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.layer.patches(x)
        return self.layer.conv(patches), patches


def test_what_others_read_stays(tmp_path: Path) -> None:
    proto = exported(tmp_path, Patches(), 2)
    graph = rewritten(proto, PASS)
    counts = Counter(operators(graph))
    assert counts["DeformConv"] == 1 and counts["GatherElements"] == 4 and counts["Gather"] == 1
    same_outputs(proto, graph)


def test_a_normalisation_behind_it_is_fused_too(tmp_path: Path) -> None:
    """In a train-form file, where the exporter has not folded it."""
    path, module = tmp_path / "m.onnx", Layer(normalized=True).eval()
    torch.onnx.export(
        module,
        (torch.zeros(2, 2, 7, 6),),
        path,
        dynamo=False,
        opset_version=20,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    proto = onnx.load(path)
    assert "BatchNormalization" in {n.op_type for n in proto.graph.node}
    graph = read_model(proto)
    infer_and_fold(graph)
    fuse_linear(graph)
    wanted = ["Conv", "Conv", "Sigmoid", "DeformConv", "Sigmoid", "Mul"]
    assert sorted(operators(graph)) == sorted(wanted)
    same_outputs(proto, graph)


def test_half_precision(tmp_path: Path) -> None:
    x = torch.zeros(1, 2, 7, 6, dtype=torch.float16)
    path = tmp_path / "m.onnx"
    torch.onnx.export(Layer().half().eval(), (x,), path, dynamo=False, opset_version=20)
    graph = rewritten(onnx.load(path), PASS)
    assert operators(graph) == ["Conv", "Conv", "Sigmoid", "DeformConv"]


def dispatch_lines(session: InferenceSession) -> list[str]:
    """The plan's dispatches, each as "| kernel variant grid node"."""
    lines = session.describe_plan().splitlines()
    return ["| " + line[2:] for line in lines if line[:2] in ("| ", "  ") and "host:" not in line]
