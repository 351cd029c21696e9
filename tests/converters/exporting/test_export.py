"""A trained module becomes one fused file that computes the same, or no file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.converters import wild_blocks as blocks
from tests.converters.blocks.test_deformable_forms import FORMS, restless
from tests.converters.frozen import scramble
from vkconv import InferenceSession
from vkconv.converters import export
from vkconv.errors import FusionError, InvalidInputError, UnsupportedModelError
from vkconv.onnx_reader import open_model
from vkconv.vision.heads import choose_head

SQUARE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def on_gpu(path: Path, **feeds: torch.Tensor) -> list[np.ndarray]:
    with InferenceSession(str(path)) as session:
        return session.run(None, {name: x.numpy() for name, x in feeds.items()})


@torch.no_grad()
def nmse(found: np.ndarray, wanted: torch.Tensor) -> float:
    expected = wanted.double().numpy()
    assert found.shape == expected.shape
    return float(np.square(found - expected).sum() / np.square(expected).sum())


@pytest.mark.parametrize(
    ("exporter", "seed"), [("dynamo", 2), ("legacy", 1), ("legacy", 2), ("legacy", 11)]
)
@pytest.mark.parametrize("form", FORMS)
def test_deformable_forms_run_on_the_gpu(
    form: str, exporter: str, seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    net = restless(nn.Sequential(FORMS[form](random.Random(seed)), nn.ReLU()), seed)
    inputs = next(part for part in net.modules() if isinstance(part, nn.Conv2d)).in_channels
    x, path = torch.randn(2, inputs, 15, 18), tmp_path / "net.onnx"
    report = export(net, x, path, exporter=exporter)
    assert report.exporter == exporter and report.nodes["DeformConv"] == 1
    assert not {"Gather", "Floor", "BatchNormalization"} & set(report.nodes)
    (found,) = on_gpu(path, input=x)
    assert nmse(found, net.double()(x.double())) <= 1e-6


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_the_operator_of_torchvision_called_directly(exporter: str, tmp_path: Path) -> None:
    from tests.converters import wild_deformable as wild

    for modulated in (True, False):
        net = wild.Functional(wild.DeformConv2d(4, 6, 3, padding=1), modulated=modulated)
        restless(net, 3)
        x, path = torch.randn(1, 4, 9, 11), tmp_path / "net.onnx"
        report = export(net, x, path, exporter=exporter, dynamic="batch")
        assert report.nodes["DeformConv"] == 1
        (found,) = on_gpu(path, x=torch.cat([x, x * 2, x]))
        wanted = net.double()(torch.cat([x, x * 2, x]).double())
        assert nmse(found, wanted) <= 1e-6


class Detector(nn.Module):
    """Train-form blocks, and rows of 5 + 2 values as YOLOv5 and v7 have them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            blocks.RepVGGBlock(3, 8, stride=2), blocks.DiverseBranchBlock(8, 8),
            blocks.ACBlock(8, 8, stride=2), blocks.BasicBlock(8),
        )  # fmt: skip
        self.head = nn.Conv2d(8, 3 * 7, 1)

    def forward(self, images):
        y = torch.sigmoid(self.head(self.body(images)))
        return y.view(y.shape[0], 3, 7, -1).permute(0, 1, 3, 2).reshape(y.shape[0], -1, 7)


def test_a_detector_with_metadata(tmp_path: Path) -> None:
    net, path = scramble(Detector(), 0), tmp_path / "detector.onnx"
    report = export(
        net, SQUARE, path, classes=["cat", "dog's"], head="yolov7", input_scale=1 / 255,
        dynamic={0: "batch", 2: "height", 3: "width"},
    )  # fmt: skip
    assert report.nodes["Conv"] == 6 and "BatchNormalization" not in report.nodes
    assert report.exporter == "dynamo" and report.notes == ()
    assert all(check.nmse <= 1e-6 for check in report.checks) and report.checks
    assert "6 Conv" in str(report) and "'output' by onnxruntime: NMSE" in str(report)
    model = open_model(path).model
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(entries["vkconv.classes"]) == ["cat", "dog's"]
    spec = choose_head({"output": (1, 192, 7)}, entries)
    assert (spec.kind, spec.class_names) == ("yolov7", ("cat", "dog's"))
    assert spec.input_scale == 1 / 255
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert model.graph.input[0].name == "images" and dims == ["batch", 3, "height", "width"]
    x = torch.rand(2, 3, 64, 96)
    (found,) = on_gpu(path, images=x)
    assert nmse(found, net.double()(x.double())) <= 1e-6


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_no_source_and_no_path_gets_into_the_file(exporter: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export(scramble(Detector(), 0), SQUARE, path, exporter=exporter)
    content = path.read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b"torch.sigmoid(self.head" not in content and b".py" not in content


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = blocks.conv_bn(3, 4, 3), blocks.conv_bn(2, 4, 1)

        def forward(self, picture, features, scale=2.0):
            return {
                "a": self.left(picture) * scale,
                "both": [self.right(features["x"]), features["y"] + 1],
            }

    net, path = scramble(Pair(), 1), tmp_path / "pair.onnx"
    x, y = torch.randn(1, 2, 5, 5), torch.randn(4)
    given = {"picture": SQUARE, "features": {"x": x, "y": y}, "scale": 3.0}
    for exporter in ("dynamo", "legacy"):
        report = export(net, given, path, exporter=exporter, dynamic={"features_x": {2: "h"}})
        assert [check.output for check in report.checks] == ["a", "both_0", "both_1"]
        found = on_gpu(path, picture=SQUARE, features_x=x, features_y=y)
        wanted = net(**given)
        assert nmse(found[0], wanted["a"]) <= 1e-6
        assert nmse(found[1], wanted["both"][0]) <= 1e-6
        assert nmse(found[2], wanted["both"][1]) <= 1e-6
    export(net, given, path, input_names=["p", "q", "r"], output_names=["u", "v", "w"])
    graph = open_model(path).model.graph
    assert [value.name for value in graph.input] == ["p", "q", "r"]
    assert [value.name for value in graph.output] == ["u", "v", "w"]


class Branching(nn.Module):
    """What torch.export cannot follow: a path chosen by a value."""

    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def test_the_legacy_exporter_does_where_dynamo_cannot(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    report = export(Branching().eval(), SQUARE, path)
    assert report.exporter == "legacy"
    assert report.notes[0].startswith("torch's dynamo exporter cannot write it: ")
    assert "\n" not in report.notes[0] and report.notes[0] in str(report)
    with pytest.raises(UnsupportedModelError, match=r"torch cannot export Branching: dynamo: \w+"):
        export(Branching().eval(), SQUARE, path, exporter="dynamo")


def test_what_differs_is_not_written(tmp_path: Path) -> None:
    """A trace keeps one path; random numbers in the range of the example take the other."""

    class Threshold(nn.Module):
        def forward(self, x):
            return x * 2 if x.flatten()[0] < 0 else x

    x = torch.linspace(-1, 9, 48).reshape(1, 3, 4, 4)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"kept")
    with pytest.raises(FusionError, match=r"not written: its output 'output' differs.*x 1x3x4x4"):
        export(Threshold().eval(), x, path)
    assert path.read_bytes() == b"kept" and list(tmp_path.iterdir()) == [path]
    export(Threshold().eval(), x, path, verify=False)
    assert path.read_bytes() != b"kept"


def test_sizes_that_the_code_makes_numbers_of(tmp_path: Path) -> None:
    """A trace keeps them; the module itself takes any size."""

    class Cells(nn.Module):
        def forward(self, x):
            return x + torch.tensor([[float(column) for column in range(x.shape[3])]])

    path = tmp_path / "net.onnx"
    with pytest.raises(FusionError, match=r"example inputs only and not on x 1x3x32x64"):
        export(Cells().eval(), SQUARE, path, dynamic={3: "width"})
    assert not path.exists()
    assert export(Cells().eval(), SQUARE, path, dynamic="batch").checks


@pytest.mark.parametrize("engine", ["vkconv (device)", "vkconv (numpy)", None])
def test_without_onnxruntime(engine: str | None, tmp_path: Path, monkeypatch) -> None:
    from vkconv.converters.exporting import verification

    def fails(model, feeds):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(verification, "has_onnxruntime", lambda: False)
    if engine != "vkconv (device)":
        monkeypatch.setattr(verification, "run_on_device", lambda choice: fails)
    path = tmp_path / "net.onnx"
    if engine is None:
        monkeypatch.setattr(verification, "run_on_reference", fails)
        with pytest.raises(FusionError, match=r"cannot be compared .*\(numpy\): no such thing"):
            export(blocks.BasicBlock(3).eval(), SQUARE, path)
        assert not path.exists()
    else:
        report = export(blocks.BasicBlock(3).eval(), SQUARE, path, exporter="legacy")
        assert {check.engine for check in report.checks} == {engine}


def test_the_module_is_left_as_it_is(tmp_path: Path) -> None:
    net = scramble(Detector(), 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(net, SQUARE, tmp_path / "net.onnx")
    after = net.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


def test_blocks_left_alone_are_told(tmp_path: Path) -> None:
    net = scramble(nn.Sequential(blocks.RepVGGBlock(3, 3)), 3)
    net[0].rbr_1x1.add_module("act", nn.ReLU().eval())
    report = export(net, SQUARE, tmp_path / "net.onnx")
    assert len(report.notes) == 1 and report.notes[0].startswith("RepConv '0' left as it is")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "yolov99"}, r"head='yolov99' is not one of yolov5"),
        ({"classes": "cat"}, "classes is a list of names"),
        ({"classes": []}, "classes is a list of names"),
        ({"input_scale": 0}, "input_scale=0 is not a positive number"),
        ({"dynamic": {"image": {0: "batch"}}}, "dynamic names the input 'image'; there are images"),
        ({"dynamic": {4: "depth"}}, "axis 4 of 'images', which has 4 axes"),
        ({"dynamic": True}, "dynamic is 'batch', axes such as"),
        ({"input_names": ["a", "b"]}, "input_names has 2 names"),
        ({"output_names": ["a", "b"]}, "output_names has 2 names"),
        ({"exporter": "onnx"}, "exporter='onnx' is neither"),
        ({"example_inputs": {"images": None}}, "example_inputs hold no tensor"),
        ({"example_inputs": torch.zeros(1, 4, 8, 8)}, "does not run on the example inputs: "),
        ({"path": "/nowhere/net.onnx"}, "cannot write to '/nowhere/net.onnx'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(options: dict, message: str, tmp_path: Path) -> None:
    given = {"example_inputs": SQUARE, "path": tmp_path / "net.onnx", **options}
    with pytest.raises(InvalidInputError, match=message) as caught:
        export(Detector().eval(), given.pop("example_inputs"), given.pop("path"), **given)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_training_mode_is_refused(tmp_path: Path) -> None:
    net = Detector().eval()
    net.body[3].bn2.train()
    with pytest.raises(InvalidInputError, match=r"export needs .*eval.*'body\.3\.bn2'"):
        export(net, SQUARE, tmp_path / "net.onnx")


def test_a_module_that_needs_its_size(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()
    with pytest.raises(InvalidInputError, match="does not run on inputs of twice the size"):
        export(net, SQUARE, tmp_path / "net.onnx", dynamic={2: "height"})
    assert export(net, SQUARE, tmp_path / "net.onnx", dynamic="batch").checks
