"""Five nets through Kompute, against onnxruntime; all nets with ``scripts/test --kompute``."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pytest
import torch

from tests.models.agreement import agree
from tests.models.comparison import compare, images
from tests.models.export import export_inputs
from tests.models.resnet import resnet18
from tests.models.unet import unet
from tests.models.yolov7_tiny import OUTPUTS, yolov7_tiny
from tests.models.zoo import NETS, examples


@pytest.fixture(autouse=True)
def _on_kompute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DEVICE", "kompute")


def test_yolov7_tiny(exported) -> None:
    shape = (1, 3, 320, 320)
    how = {"exporter": "legacy", "opset": 11, "outputs": OUTPUTS}
    path = exported("yolov7_tiny_320_1_legacy_11", yolov7_tiny, shape, **how)
    compare(path, [{"images": images(*shape)}])


def test_resnet18(exported) -> None:
    shape = (1, 3, 224, 224)
    path = exported("resnet18_legacy", resnet18, shape, exporter="legacy", opset=13)
    compare(path, [{"images": images(*shape)}])


def test_unet(exported) -> None:
    shape = (1, 3, 256, 256)
    path = exported("unet_legacy", unet, shape, exporter="legacy", opset=13)
    compare(path, [{"images": images(*shape)}])


def test_the_demo_net() -> None:
    with as_file(files("vkconv").joinpath("data", "demo.onnx")) as path:
        compare(path, [{"images": images(1, 3, 320, 320)}])


def test_fcos_whose_detections_are_counted_on_the_device(tmp_path: Path) -> None:
    """Two stages: what follows is planned when the number of detections is known."""
    torch.set_num_threads(1)
    (net,) = (n for n in NETS if n.name == "fcos_nms")
    path = export_inputs(
        net.make(),
        examples(net, *net.shapes[-1]),
        tmp_path / "fcos_nms.onnx",
        exporter="legacy",
        opset=13,
        open_axes=net.open_axes,
        outputs=net.outputs,
    )
    feeds = [net.inputs(batch, size, seed) for seed, (batch, size) in enumerate(net.shapes)]
    agree(path, feeds, net.ranked)
