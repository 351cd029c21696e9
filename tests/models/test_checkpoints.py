"""Checkpoints in training form -> one ONNX file -> the device, against PyTorch.

The nets have their full depth and structure but are thin. RTMDet is in test_zoo as well, RepVGG in
test_reparameterized_models; every loader has its oracle in tests/converters/checkpoints.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import vkconv
from tests.converters.checkpoints.test_acnet import network as acnet_oracle
from tests.converters.checkpoints.wild_weights import Weights
from tests.models import fcos, rtmdet_ins, yolov7
from tests.models.comparison import ALLOWED_NMSE, ON_DEVICE, nmse
from vkconv.converters import reparameterize
from vkconv.converters.checkpoints.acnet import load_acnet
from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.checkpoints.fcos import load_fcos
from vkconv.converters.checkpoints.fcos_net import Fcos
from vkconv.converters.checkpoints.rtmdet import load_rtmdet_ins
from vkconv.converters.checkpoints.writing import write_onnx
from vkconv.converters.checkpoints.yolov7 import load_yolov7

THIN = 0.125


def pictures(batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.rand(batch, 3, height, width, generator=generator)


def train_form(module: nn.Module) -> onnx.ModelProto:
    """As the legacy exporter writes it when it is told to leave everything as in training."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (pictures(1, 64, 96),),
            buffer,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["images"],
        )
    return onnx.load_from_string(buffer.getvalue())


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def dispatches(session: vkconv.InferenceSession) -> list[str]:
    """Barrier, kernel, variant and grid of each; names of nodes may differ."""
    return [line.rsplit(None, 1)[0] for line in session.describe_plan().splitlines()[1:]]


@pytest.mark.parametrize("name", yolov7.NETS)
def test_a_train_form_file_is_as_good_as_the_deploy_form(name: str) -> None:
    """The same nodes once fused, the same dispatches when run, and PyTorch's numbers."""
    net = yolov7.NETS[name](classes=5, width=THIN)
    trained, deployed = train_form(net), train_form(yolov7.deployed(net))
    assert kinds(trained)["BatchNormalization"] > 50 and "BatchNormalization" not in kinds(deployed)
    fused = vkconv.fuse(trained, prove=False).to_proto()
    assert kinds(fused) == kinds(deployed)
    x = pictures(1, 64, 96)
    plans = []
    for model in (trained, deployed):
        with vkconv.InferenceSession(model, strict=True) as session:
            [actual] = session.run(None, {"images": x.numpy()})
            plans.append(dispatches(session))
        worst = nmse(actual, net(x).numpy())
        assert worst <= ALLOWED_NMSE
        print(f"{name}: NMSE {worst:.1e}")
    assert plans[0] == plans[1] and len(plans[0]) > 50


def of_yolov7(folder: Path) -> Checkpoint:
    net = yolov7.yolov7(classes=5, width=THIN)
    (folder / "net.yaml").write_text(yolov7.yaml_of("yolov7", 80, THIN))
    torch.save({"model": net.state_dict(), "ema": None}, folder / "w.pt")
    return load_yolov7(folder / "net.yaml", folder / "w.pt")


def of_fcos(folder: Path) -> Checkpoint:
    sizes = fcos.sizes_of(4, style="pytorch", norm_on_bbox=True)
    net = fcos.filled(lambda: Fcos(sizes, fcos.NORMALIZED), 5)
    torch.save(net.state_dict(), folder / "w.pt")
    return load_fcos(folder / "w.pt", style="pytorch", norm_on_bbox=True)


def of_rtmdet_ins(folder: Path) -> Checkpoint:
    torch.save(rtmdet_ins.rtmdet_ins_suppressed().state_dict(), folder / "w.pt")
    return load_rtmdet_ins(folder / "w.pt")


def of_acnet(folder: Path) -> Checkpoint:
    w = Weights(2)
    acnet_oracle(w, pictures(1, 32, 32), bottleneck=False)
    torch.save(w.state, folder / "w.pt")
    return load_acnet(folder / "w.pt")


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (of_yolov7, 1),
        (of_fcos, "dynamic"),
        (of_rtmdet_ins, 1),
        (of_acnet, 2),
    ],
)
def test_converted(make: Callable[[Path], Checkpoint], batch: int | str, tmp_path) -> None:
    checkpoint = make(tmp_path)
    path = tmp_path / "net.onnx"
    report = write_onnx(checkpoint, path, size=(64, 96), batch=batch)
    assert report.exporter == "dynamo"
    assert "BatchNormalization" not in report.nodes
    # one convolution for each of the deploy form's; RTMDet-Ins computes the weights of three more
    convolutions = sum(
        isinstance(part, nn.Conv2d) for part in reparameterize(checkpoint.module).modules()
    )
    shared = 4 * 7 if make is of_fcos else 0
    computed = 3 if make is of_rtmdet_ins else 0
    assert report.nodes["Conv"] == convolutions + shared + computed

    x = pictures(3 if batch == "dynamic" else int(batch), 64, 96)
    expected = checkpoint.module(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    with vkconv.InferenceSession(str(path), strict=True) as session:
        assert [o.name for o in session.get_outputs()] == list(checkpoint.outputs)
        entries = session.get_modelmeta().custom_metadata_map
        outputs = session.run(None, {"images": x.numpy()})
        elsewhere = [p for p in session.placement if p.where not in ON_DEVICE]
        assert not elsewhere, elsewhere
    assert entries.get("vkconv.head", "") == checkpoint.head
    for actual, wanted in zip(outputs, expected, strict=True):
        assert np.std(wanted.numpy()) > 0
        worst = nmse(actual, wanted.numpy())
        assert worst <= ALLOWED_NMSE
        print(f"{make.__name__}: NMSE {worst:.1e}")
