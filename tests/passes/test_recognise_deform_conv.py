"""Traced deformable convolution becomes DeformConv where it is one, and only there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from tests.models.export import Exporter, export
from tests.passes.plain_deform import PlainDeformConv2d
from tests.passes.rewriting import evaluate, operators, rewritten
from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.ir import Array, Graph, Unfused
from vkconv.onnx_reader import read_model
from vkconv.ops.base import REGISTRY
from vkconv.passes import fuse_linear, infer_and_fold, traced_sampling
from vkconv.passes.recognise_deform_conv import KIND
from vkconv.passes.recognise_deform_conv import recognise_deform_conv as PASS

#: the module; the package holds the function under its name
MODULE = sys.modules[PASS.__module__]
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


# --- one layer, and models that differ from it in one thing ---------------------------


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
        self.layer.offsets = lambda x: change(made(self.layer, x))  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return (y, self.layer.p_conv(x)) if self.shows else y


def exported(tmp_path: Path, module: nn.Module, outputs: int = 1) -> onnx.ModelProto:
    names = [f"y{i}" for i in range(outputs)]
    path = export(module.eval(), (2, 2, 7, 6), tmp_path / "m.onnx", opset=20, outputs=names)
    return onnx.load(path)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported(tmp_path_factory.mktemp("layer"), Layer())


def same_outputs(proto: onnx.ModelProto, graph: Graph) -> None:
    """The rewritten graph computes what the untouched one does."""
    random = np.random.default_rng(5)
    feeds = {v.name: random.standard_normal(v.dims).astype(v.dtype) for v in graph.inputs}
    plain = read_model(proto)
    infer_and_fold(plain)
    for actual, expected in zip(evaluate(graph.copy(), feeds), evaluate(plain, feeds), strict=True):
        assert nmse(actual, expected) <= 1e-10


def test_offset_weights_are_reordered(layer: onnx.ModelProto) -> None:
    graph = rewritten(layer, PASS)
    assert operators(graph) == ["Conv", "Conv", "Sigmoid", "DeformConv"]
    [deform] = [n for n in graph.nodes if n.op_type == "DeformConv"]
    offset = deform.inputs[2]
    assert offset is not None and offset.producer is not None
    assert offset.producer.op_type == "Conv"
    same_outputs(layer, graph)


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


def test_without_a_border_of_zeros_it_stays(tmp_path: Path) -> None:
    proto = exported(tmp_path, Layer(padding=0))
    graph = rewritten(proto, PASS)
    assert "DeformConv" not in operators(graph)
    [left] = refused(graph)
    assert left.kind == KIND
    assert "no border of zeros" in left.reason or "something else" in left.reason


def another_border(proto: onnx.ModelProto) -> None:
    [pad] = [n for n in proto.graph.node if n.op_type == "Pad"]
    value = helper.make_tensor("one", 1, [], [1.0])
    proto.graph.initializer.append(value)
    del pad.input[2:]
    pad.input.append("one")


def another_sign(proto: onnx.ModelProto) -> None:
    """One factor of a weight becomes 1 + d instead of 1 - d."""
    subtraction = [n for n in proto.graph.node if n.op_type == "Sub"][-1]
    subtraction.op_type = "Add"


def tighter_clamp(proto: onnx.ModelProto) -> None:
    clip = [n for n in proto.graph.node if n.op_type == "Clip"][-1]
    proto.graph.initializer.append(helper.make_tensor("three", 1, [], [3.0]))
    clip.input[2] = "three"


def rounded(proto: onnx.ModelProto) -> None:
    """Positions are rounded down in an extra place: the nearest pixel to the left above."""
    [floor] = [n for n in proto.graph.node if n.op_type == "Floor"]
    for item in proto.graph.node:
        if item is not floor:
            for i, name in enumerate(item.input):
                if name == floor.input[0]:
                    item.input[i] = floor.output[0]


def another_order_of_taps(proto: onnx.ModelProto) -> None:
    """The lines of a patch in reverse."""
    concat = [n for n in proto.graph.node if n.op_type == "Concat" and len(n.input) == 3][-1]
    reverse = list(concat.input)[::-1]
    del concat.input[:]
    concat.input.extend(reverse)


@pytest.mark.parametrize(
    "change", [another_border, another_sign, tighter_clamp, rounded, another_order_of_taps]
)
def test_what_computes_something_else_stays(
    layer: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]
) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(layer)
    change(proto)
    graph = rewritten(proto, PASS)
    assert "DeformConv" not in operators(graph)
    [left] = refused(graph)
    assert "something else than DeformConv (NMSE" in left.reason
    PASS(graph)
    assert refused(graph) == [left], "it is tried once, and noted once"


def test_positions_that_leave_the_map_are_another_operator(layer: onnx.ModelProto) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(layer)
    for clip in [n for n in proto.graph.node if n.op_type == "Clip"]:
        del clip.input[1:]
    [left] = refused(rewritten(proto, PASS))
    assert "something else" in left.reason or "cannot be run" in left.reason


def test_what_cannot_be_run_is_a_reason(
    layer: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *_: Any) -> None:
        raise IndexError("index 99 is out of bounds")

    graph = read_model(layer)
    infer_and_fold(graph)
    monkeypatch.setattr(REGISTRY["", "GatherElements"], "reference", fail)
    PASS(graph)
    [left] = refused(graph)
    assert left.reason == "it cannot be run: IndexError: index 99 is out of bounds"


def test_large_maps_are_left_alone(layer: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "MOST_ELEMENTS", 100)
    graph = rewritten(layer, PASS)
    assert "too large to compare" in refused(graph)[0].reason
    assert "GatherElements" in operators(graph)


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


def test_other_models_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: Any) -> None:
        raise AssertionError("looked at")

    monkeypatch.setattr(MODULE, "find_sampling", find)
    monkeypatch.setattr(MODULE, "_samples", find)
    weights = {"w": floats(4, 3, 2, 2), "i": np.array([1, 0, 2])}
    tiling = node("Conv", "a w", "y", strides=[2, 2])
    inputs, out = {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}
    rewritten(model([node("Gather", "x i", "a", axis=1), tiling], inputs, out, weights), PASS)
    rewritten(model([node("Floor", "x", "a"), tiling], inputs, out, weights), PASS)
    # both are there, but not for what the convolution reads
    apart = [tiling, node("Floor", "x", "f"), node("Gather", "f i", "g", axis=1)]
    relu, outputs = node("Relu", "x", "a"), {**out, "g": [1, 3, 8, 8]}
    rewritten(model([relu, *apart], {"x": [None, 3, 8, 8]}, outputs, weights), PASS)
    overlapping = node("Conv", "b w", "y", strides=[1, 1])
    steps = [node("Floor", "x", "a"), node("Gather", "a i", "b", axis=1), overlapping]
    rewritten(model(steps, inputs, {"y": [1, 4, 7, 7]}, weights), PASS)


def test_rounding_and_gathering_for_another_purpose_is_left_in_silence() -> None:
    weights = {"w": floats(4, 3, 2, 2), "i": np.array([1, 0, 2])}
    steps = [
        node("Floor", "x", "a"),
        node("Relu", "a", "r"),
        node("Gather", "r i", "b", axis=1),
        node("Conv", "b w", "y", strides=[2, 2]),
    ]
    graph = rewritten(model(steps, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, weights), PASS)
    assert not graph.unfused and not graph.fusions
    assert operators(graph) == ["Floor", "Relu", "Gather", "Conv"]


def test_a_walk_over_a_long_chain_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_sampling, "_MOST_NODES", 10)
    steps = [node("Neg", "x", "v0"), node("Floor", "v0", "f"), node("Gather", "f i", "g", axis=1)]
    steps += [node("Neg", "g" if i == 0 else f"n{i - 1}", f"n{i}") for i in range(40)]
    steps.append(node("Conv", "n39 w", "y", strides=[2, 2]))
    weights = {"w": floats(4, 3, 2, 2), "i": np.array([1, 0, 2])}
    graph = rewritten(model(steps, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, weights), PASS)
    assert not graph.unfused and len(graph.nodes) == 44


def refused(graph: Graph) -> list[Unfused]:
    return [u for u in graph.unfused if u.kind == KIND]


def dispatch_lines(session: InferenceSession) -> list[str]:
    """The plan's dispatches, each as "| kernel variant grid node"."""
    lines = session.describe_plan().splitlines()
    return ["| " + line[2:] for line in lines if line[:2] in ("| ", "  ") and "host:" not in line]


def nmse(actual: Array, expected: Array) -> float:
    assert actual.shape == expected.shape
    power = float(np.mean(expected.astype(np.float64) ** 2))
    return float(np.mean((actual.astype(np.float64) - expected) ** 2)) / power
