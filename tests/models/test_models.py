"""Whole models give what onnxruntime gives, with every node on the device."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pytest

from tests.models import light
from tests.models.comparison import compare, images, nmse
from tests.models.resnet import resnet18
from tests.models.unet import unet
from tests.models.vgg import vgg16
from tests.models.yolov7_tiny import OUTPUTS, yolov7_tiny
from vkconv import InferenceSession

EXPORTERS = [("legacy", 13), ("dynamo", 18)]


@pytest.fixture
def report(record_property, request):
    """Keeps a model's error: in the JUnit file, and on the terminal with -rP."""

    def keep(worst: float) -> None:
        record_property("nmse", worst)
        print(f"{request.node.name}: NMSE {worst:.2e}")

    return keep


@pytest.mark.parametrize(
    ("size", "batch", "exporter", "opset"),
    [(320, 1, "legacy", 11), (320, 1, "dynamo", 20), (416, 3, "legacy", 17), (416, 1, "legacy", 9)],
)
def test_yolov7_tiny(exported, report, size, batch, exporter, opset):
    shape = (batch, 3, size, size)
    name = f"yolov7_tiny_{size}_{batch}_{exporter}_{opset}"
    path = exported(name, yolov7_tiny, shape, exporter=exporter, opset=opset, outputs=OUTPUTS)
    report(compare(path, [{"images": images(*shape)}]))


@pytest.mark.parametrize(("exporter", "opset"), EXPORTERS)
def test_yolov7_tiny_of_open_size(exported, report, exporter, opset):
    """One session, planned anew for each shape and back again."""
    path = exported(
        f"yolov7_tiny_open_{exporter}",
        yolov7_tiny,
        (2, 3, 320, 352),
        exporter=exporter,
        opset=opset,
        dynamic=True,
        outputs=OUTPUTS,
    )
    shapes = [
        (1, 320, 320),
        (3, 320, 320),
        (1, 416, 416),
        (3, 416, 416),
        (1, 96, 224),
        (1, 320, 320),
    ]
    report(compare(path, [{"images": images(n, 3, h, w)} for n, h, w in shapes]))


@pytest.mark.parametrize(("exporter", "opset"), EXPORTERS)
def test_resnet18(exported, report, exporter, opset):
    shape = (1, 3, 224, 224)
    path = exported(f"resnet18_{exporter}", resnet18, shape, exporter=exporter, opset=opset)
    report(compare(path, [{"images": images(*shape)}]))


@pytest.mark.parametrize(("exporter", "opset"), EXPORTERS)
def test_unet(exported, report, exporter, opset):
    shape = (1, 3, 256, 256)
    path = exported(f"unet_{exporter}", unet, shape, exporter=exporter, opset=opset)
    report(compare(path, [{"images": images(*shape)}]))


def test_vgg16(exported, report):
    """Weights of 553 MB in a second file, 411 MB of them in one matrix."""
    shape = (1, 3, 224, 224)
    path = exported("vgg16", vgg16, shape, exporter="dynamo", opset=18)
    report(compare(path, [{"images": images(*shape)}]))


def test_the_demo_net(report):
    with as_file(files("vkconv").joinpath("data", "demo.onnx")) as path:
        with InferenceSession(path) as session:
            (model_input,) = session.get_inputs()
        shape = [d if isinstance(d, int) else 320 for d in model_input.shape]
        shape[0] = 1
        report(compare(path, [{model_input.name: images(*shape)}]))


@pytest.mark.parametrize("name", light.NAMES)
def test_light(report, name):
    """As ONNX's backend tests run it, with their expected output; then with weights that differ."""
    model = light.load(name)
    feeds = light.ramp(model)
    with InferenceSession(model, strict=True) as session:
        assert nmse(session.run(None, feeds)[0], light.expected(name)) <= 1e-6
    other = {key: images(*array.shape) for key, array in feeds.items()}
    worst = compare(light.reweighted(model).SerializeToString(), [other])
    report(worst)


def test_the_light_models_are_all_there():
    assert {f"light_{name}.onnx" for name in light.NAMES} == {
        path.name for path in light.FOLDER.glob("*.onnx")
    }
    assert np.std(light.expected("densenet121")) < 1e-6
