#!/usr/bin/env python3
"""The standard suite: nets of tests/models with random weights, each exported in its own process.

scripts/bench_nets.py resnet50 resnet50.onnx
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Net:
    """``factory`` makes the torch module, ``size`` is the height and width of its one image."""

    name: str
    title: str
    factory: str
    size: int
    opset: int = 17

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return 1, 3, self.size, self.size


def _tiny(size: int) -> Net:
    factory = "tests.models.yolov7_tiny:yolov7_tiny"
    return Net(f"yolov7-tiny-{size}", f"YOLOv7-tiny-like {size}", factory, size)


NETS = {
    net.name: net
    for net in (
        _tiny(320),
        _tiny(640),
        Net("yolov7", "YOLOv7 320", "bench_nets:yolov7", 320),
        Net("resnet50", "ResNet-50 224", "tests.models.resnet:resnet50", 224),
        Net("vgg16", "VGG-16 224", "tests.models.vgg:vgg16", 224),
        Net("mobilenet_v2", "MobileNetV2 224", "bench_nets:mobilenet_v2", 224),
        Net("efficientnet_b0", "EfficientNet-B0 224", "bench_nets:efficientnet_b0", 224),
        Net("unet", "U-Net 256", "tests.models.unet:unet", 256),
        Net("fcos", "FCOS-R18-FPN 320", "tests.models.fcos:fcos_r18", 320),
        Net("dcn_resnet18", "DCNv2-ResNet-18 224", "tests.models.resnet:dcn_resnet18", 224, 20),
        Net("rtmdet_tiny", "RTMDet-tiny-like 320", "tests.models.rtmdet_ins:rtmdet_tiny", 320),
        Net(
            "shufflenet_v2",
            "ShuffleNetV2 224",
            "tests.models.shufflenet:shufflenet_v2_published",
            224,
        ),
        # not in the suite's figures, but asked for often
        Net("resnet18", "ResNet-18 224", "tests.models.resnet:resnet18", 224),
    )
}
#: what ``scripts/bench`` runs when no net is named
SUITE = tuple(name for name in NETS if name != "resnet18")


def yolov7() -> Any:
    """YOLOv7 with each block one convolution, as it is deployed."""
    module = importlib.import_module("tests.models.yolov7")
    return module.deployed(module.yolov7())


def mobilenet_v2() -> Any:
    return importlib.import_module("tests.models.mobile").mobilenet_v2(classes=1000)


def efficientnet_b0() -> Any:
    return importlib.import_module("tests.models.mobile").efficientnet_b0(classes=1000)


def make(net: Net) -> Any:
    """The torch module of a net."""
    module, _, function = net.factory.partition(":")
    return getattr(importlib.import_module(module), function)()


def export(net: Net, path: Path) -> None:
    """Write the net as ONNX by torch's own exporter."""
    torch = importlib.import_module("torch")
    write = importlib.import_module("tests.models.export").export
    module = make(net)
    with torch.inference_mode():
        outputs = module(torch.zeros(net.shape))
    count = len(outputs) if isinstance(outputs, (tuple, list)) else 1
    names = [f"output{i}" for i in range(count)]
    write(module, net.shape, path, opset=net.opset, outputs=names)


def export_apart(net: Net, path: Path) -> None:
    """``export`` in a process of its own: torch's memory and threads end with it.

    Raises ValueError with the last line of what went wrong.
    """
    command = [sys.executable, "-W", "ignore", __file__, net.name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise ValueError(f"{net.name} cannot be exported: {last[0]}")


def main() -> None:
    summary = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="scripts/bench_nets.py", description=summary)
    parser.add_argument("net", choices=sorted(NETS), metavar="NET", help=", ".join(sorted(NETS)))
    parser.add_argument("path", type=Path, metavar="OUT.onnx", help="where to write it")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    # factories of this file are found by its name
    sys.modules["bench_nets"] = sys.modules[__name__]
    export(NETS[options.net], options.path)


if __name__ == "__main__":
    main()
