"""Detectors of docs/systems.md."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.models import detr3d, fcos, rtmdet_ins, yolov7
from tests.models.yolox import yolox
from tests.models.zoo import cameras
from tests.systems.running import pictures, run_system
from vkconv.converters.checkpoints import load_yolov7

THIN = 0.0625


def test_fcos(tmp_path: Path) -> None:
    """Priors, exponentials, centerness times class scores, and suppression within the model."""
    ran = run_system(fcos.fcos_nms(), pictures(1, 64, 96), tmp_path)
    assert ran.nodes["InstanceNormalization"] == 20
    assert (ran.nodes["Exp"], ran.nodes["NonMaxSuppression"]) == (5, 1)


def test_yolov7(tmp_path: Path) -> None:
    """From the text of its yaml and a state_dict, of the depth that was published."""
    net = yolov7.yolov7(classes=5, width=THIN)
    (tmp_path / "net.yaml").write_text(yolov7.yaml_of("yolov7", 80, THIN))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    module = load_yolov7(tmp_path / "net.yaml", tmp_path / "net.pt").module
    trained = {type(part).__name__ for part in module.modules()}
    assert {"SppCspc", "ImplicitA", "ImplicitM"} <= trained
    deploy = yolov7.convolutions_only(5, THIN)
    ran = run_system(module, pictures(1, 64, 96), tmp_path, deploy=deploy)
    assert ran.nodes["Conv"] == 92


def test_yolox_with_deformable_layers(tmp_path: Path) -> None:
    ran = run_system(yolox(), pictures(1, 64, 96), tmp_path)
    assert ran.nodes["DeformConv"] == 2
    rows = 8 * 12 + 4 * 6 + 2 * 3
    assert next(iter(ran.outputs.values())).shape == (1, rows, 9)


def test_rtmdet(tmp_path: Path) -> None:
    run_system(rtmdet_ins.rtmdet(), pictures(1, 64, 96), tmp_path)


def test_rtmdet_ins(tmp_path: Path) -> None:
    """The weights of three convolutions are computed: a group for each instance."""
    ran = run_system(
        rtmdet_ins.rtmdet_ins_suppressed(),
        pictures(1, 64, 96),
        tmp_path,
        output_names=("detections", "masks"),
    )
    assert ran.outputs["masks"].shape == (1, 100, 8, 12)


def test_detr3d(tmp_path: Path) -> None:
    inputs = {name: torch.from_numpy(array) for name, array in cameras(1, 64, 0).items()}
    ran = run_system(detr3d.detr3d(), inputs, tmp_path, output_names=("classes", "boxes"))
    assert (ran.nodes["GridSample"], ran.nodes["LayerNormalization"]) == (4, 12)
