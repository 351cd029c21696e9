"""YOLOv7 and YOLOv7-tiny (Wang, Bochkovskiy, Liao 2022) in full, in their training form.

The cfgs are put together here from the paper's blocks (figures 2 and 3 and appendix) and read as a
user's yaml is: 37 million parameters, RepConv before the heads, implicit vectors around them. The
nets decode their rows: ``(b, n, 5 + classes)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tests.models.weights import build
from vkconv.converters.checkpoints.yolov7_cfg import parse_cfg
from vkconv.converters.checkpoints.yolov7_layers import AnchorDetect, ImplicitA, ImplicitM
from vkconv.converters.checkpoints.yolov7_net import YoloV7, build_yolov7

Rows = list[list[Any]]
LEAKY = "nn.LeakyReLU(0.1)"
ANCHORS = {
    "yolov7": [
        [12, 16, 19, 36, 40, 28],
        [36, 75, 76, 55, 72, 146],
        [142, 110, 192, 243, 459, 401],
    ],
    "yolov7-tiny": [
        [10, 13, 16, 30, 33, 23],
        [30, 61, 62, 45, 59, 119],
        [116, 90, 156, 198, 373, 326],
    ],
}


def yolov7(classes: int = 80, seed: int = 17, width: float = 1.0) -> YoloV7:
    """The net with weights of its own, ready to run; ``width`` thins it out."""
    return random_net(cfg_of("yolov7", classes, width), seed)


def yolov7_tiny(classes: int = 80, seed: int = 18, width: float = 1.0) -> YoloV7:
    return random_net(cfg_of("yolov7-tiny", classes, width), seed)


def random_net(cfg: dict[str, Any], seed: int) -> YoloV7:
    """The net of a cfg with random weights, every one of which moves the result."""
    slope = 0.1 if LEAKY in json.dumps(cfg) else 0.0
    net = build(lambda: build_yolov7(parse_cfg(cfg, "tests")), seed, slope)
    assert isinstance(net, YoloV7)
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, ImplicitA):
            part.implicit.normal_(0, 0.2, generator=generator)
        elif isinstance(part, ImplicitM):
            part.implicit.normal_(1, 0.1, generator=generator)
        elif isinstance(part, AnchorDetect):
            for layer in part.m:
                layer.weight.mul_(0.5)
    return net


def convolutions_only(classes: int, width: float, seed: int = 17) -> YoloV7:
    """YOLOv7 of the sizes of its form for inference, built without the converter: a convolution for
    each RepConv, other weights."""
    cfg = cfg_of("yolov7", classes, width)
    for part in ("backbone", "head"):
        for row in cfg[part]:
            row[2] = "Conv" if row[2] == "RepConv" else row[2]
    return random_net(cfg, seed)


def deployed(net: YoloV7) -> nn.Module:
    """The net as the same cfg's deploy form has it: one biased convolution for each block."""
    from vkconv.converters.reparameterization import reparameterize

    return reparameterize(net)


def yaml_of(name: str, classes: int = 80, width: float = 1.0) -> str:
    """The cfg as the text of a yaml file, one layer a line."""
    cfg = cfg_of(name, classes, width)
    lines = [f"{key}: {cfg[key]}" for key in ("nc", "depth_multiple", "width_multiple")]
    lines += ["anchors:", *(f"  - {level}" for level in cfg["anchors"])]
    for part in ("backbone", "head"):
        # words without quotes, as people write them
        rows = [json.dumps(row).replace('"nearest"', "'nearest'") for row in cfg[part]]
        rows = [row.replace("null", "None").replace('"', "") for row in rows]
        lines += [f"{part}:", "  [" + ",\n   ".join(rows), "  ]"]
    return "\n".join(lines) + "\n"


def cfg_of(name: str, classes: int = 80, width: float = 1.0) -> dict[str, Any]:
    """The cfg as yaml would give it."""
    backbone, head = {"yolov7": _full, "yolov7-tiny": _tiny}[name]()
    return {
        "nc": classes,
        "depth_multiple": 1.0,
        "width_multiple": width,
        "anchors": ANCHORS[name],
        "backbone": backbone,
        "head": head,
    }


class _Writer:
    """Rows one after the other; ``at`` is the index of the last."""

    def __init__(self, act: str | None = None) -> None:
        self.rows: Rows = []
        self.act = [None, 1, act] if act else []

    @property
    def at(self) -> int:
        return len(self.rows) - 1

    def add(self, sources: int | Sequence[int], kind: str, *arguments: Any) -> int:
        self.rows.append([sources, 1, kind, list(arguments)])
        return self.at

    def conv(self, channels: int, kernel: int = 1, stride: int = 1, source: int = -1) -> int:
        return self.add(source, "Conv", channels, kernel, stride, *self.act)

    def joined(self, *sources: int) -> int:
        return self.add(list(sources), "Concat", 1)

    def lateral(self, channels: int, route: int) -> None:
        """The coarse map, narrower and twice as large, beside a finer one of the backbone."""
        self.conv(channels)
        self.add(-1, "nn.Upsample", None, 2, "nearest")
        self.conv(channels, source=route)
        self.joined(-1, -2)

    def entries(self, first: int, second: int) -> None:
        """Two 1x1 convolutions of one map, side by side."""
        self.conv(first)
        self.conv(second, source=-2)


def _full() -> tuple[Rows, Rows]:
    net = _Writer()

    def elan(hidden: int, outputs: int) -> int:
        """Two entries and every second of four 3x3 behind them are joined and mixed."""
        net.entries(hidden, hidden)
        for _ in range(4):
            net.conv(hidden, 3)
        net.joined(-1, -3, -5, -6)
        return net.conv(outputs)

    def elan_wide(outputs: int) -> int:
        """ELAN-H: all six maps are joined; the four 3x3 are half as wide."""
        net.entries(outputs, outputs)
        for _ in range(4):
            net.conv(outputs // 2, 3)
        net.joined(-1, -2, -3, -4, -5, -6)
        return net.conv(outputs)

    def halve(channels: int, *beside: int) -> None:
        """A pooled and a strided branch of ``channels`` each."""
        net.add(-1, "MP")
        net.conv(channels)
        net.conv(channels, source=-3)
        net.conv(channels, 3, 2)
        net.joined(-1, -3, *beside)

    net.conv(32, 3)
    net.conv(64, 3, 2)
    net.conv(64, 3)
    net.conv(128, 3, 2)
    elan(64, 256)
    halve(128)
    third = elan(128, 512)
    halve(256)
    fourth = elan(256, 1024)
    halve(512)
    elan(256, 1024)
    split = len(net.rows)

    fifth = net.add(-1, "SPPCSPC", 512)
    net.lateral(256, fourth)
    middle = elan_wide(256)
    net.lateral(128, third)
    outs = [elan_wide(128)]
    halve(128, middle)
    outs.append(elan_wide(256))
    halve(256, fifth)
    outs.append(elan_wide(512))
    widths = (256, 512, 1024)
    outs = [net.add(o, "RepConv", w, 3, 1) for o, w in zip(outs, widths, strict=True)]
    net.add(outs, "IDetect", "nc", "anchors")
    return net.rows[:split], net.rows[split:]


def _tiny() -> tuple[Rows, Rows]:
    net = _Writer(LEAKY)

    def elan(hidden: int, outputs: int) -> int:
        net.entries(hidden, hidden)
        net.conv(hidden, 3)
        net.conv(hidden, 3)
        net.joined(-1, -2, -3, -4)
        return net.conv(outputs)

    def pyramid(channels: int) -> int:
        net.entries(channels, channels)
        for place, size in enumerate((5, 9, 13), 1):
            net.add(-place, "SP", size)
        net.joined(-1, -2, -3, -4)
        net.conv(channels)
        net.joined(-1, -7)
        return net.conv(channels)

    net.conv(32, 3, 2)
    net.conv(64, 3, 2)
    elan(32, 64)
    routes = []
    for hidden in (64, 128, 256):
        net.add(-1, "MP")
        routes.append(elan(hidden, 2 * hidden))
    split = len(net.rows)

    coarse = pyramid(256)
    net.lateral(128, routes[1])
    middle = elan(64, 128)
    net.lateral(64, routes[0])
    outs = [elan(32, 64)]
    for channels, beside in ((128, middle), (256, coarse)):
        net.conv(channels, 3, 2)
        net.joined(-1, beside)
        outs.append(elan(channels // 2, channels))
    outs = [net.conv(2 * w, 3, source=o) for o, w in zip(outs, (64, 128, 256), strict=True)]
    net.add(outs, "IDetect", "nc", "anchors")
    return net.rows[:split], net.rows[split:]


#: both nets by the name of their cfg
NETS: dict[str, Callable[..., YoloV7]] = {"yolov7": yolov7, "yolov7-tiny": yolov7_tiny}
