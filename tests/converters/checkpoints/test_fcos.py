"""FCOS from mmdetection's names, against the same network written down with functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.converters.checkpoints.wild_weights import (
    Tensor,
    Weights,
    boxes,
    by_rows,
    nmse,
    pictures,
)
from vkconv.converters.checkpoints.fcos import load_fcos
from vkconv.errors import InvalidModelError

CLASSES = 3


def resnet(w: Weights, x: Tensor, *, bottleneck: bool, caffe: bool, groups: int = 1) -> list:
    """Maps of stride 8, 16, 32 of a ResNet with one or two blocks a stage."""
    x = F.relu(w.norm(w.conv(x, "backbone.conv1", 16, 7, 2), "backbone.bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, (inner, blocks) in enumerate(((16, 1), (16, 2), (24, 1), (32, 1))):
        outputs = inner * 2 if bottleneck else inner
        for block in range(blocks):
            name = f"backbone.layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            y, same = x, x
            if stride != 1 or x.shape[1] != outputs:
                same = w.conv(x, f"{name}.downsample.0", outputs, 1, stride)
                same = w.norm(same, f"{name}.downsample.1")
            if bottleneck:
                first, second = (stride, 1) if caffe else (1, stride)
                y = F.relu(w.norm(w.conv(y, f"{name}.conv1", inner, 1, first), f"{name}.bn1"))
                y = w.conv(y, f"{name}.conv2", inner, 3, second, groups)
                y = F.relu(w.norm(y, f"{name}.bn2"))
                y = w.norm(w.conv(y, f"{name}.conv3", outputs), f"{name}.bn3")
            else:
                y = w.conv(y, f"{name}.conv1", outputs, 3, stride)
                y = F.relu(w.norm(y, f"{name}.bn1"))
                y = w.norm(w.conv(y, f"{name}.conv2", outputs, 3), f"{name}.bn2")
            x = F.relu(y + same)
        maps.append(x)
    return maps[1:]


def fcos(
    w: Weights,
    rgb: Tensor,
    *,
    bottleneck: bool = True,
    caffe: bool = True,
    groups: int = 1,
    norm_on_bbox: bool = False,
    centerness_on_reg: bool = False,
    norm: str = "gn",
    old_names: bool = False,
) -> Tensor:
    """(b, n, 5 + classes) in float64 of pictures (b, 3, h, w) in 0..1."""
    pixels = rgb.double() * 255
    if caffe:
        x = pixels.flip(1) - torch.tensor([102.9801, 115.9465, 122.7717]).double().view(3, 1, 1)
        w("backbone.conv1.weight", 16, 3, 7, 7, low=-0.002, high=0.002)
    else:
        x = pixels - torch.tensor([123.675, 116.28, 103.53]).double().view(3, 1, 1)
        x = x / torch.tensor([58.395, 57.12, 57.375]).double().view(3, 1, 1)
    maps = resnet(w, x, bottleneck=bottleneck, caffe=caffe, groups=groups)
    lateral = [w.conv(m, f"neck.lateral_convs.{i}.conv", 32, bias=True) for i, m in enumerate(maps)]
    for i in (1, 0):
        larger = F.interpolate(lateral[i + 1], lateral[i].shape[2:], mode="nearest")
        lateral[i] = lateral[i] + larger
    levels = [
        w.conv(m, f"neck.fpn_convs.{i}.conv", 32, 3, bias=True) for i, m in enumerate(lateral)
    ]
    levels.append(w.conv(levels[2], "neck.fpn_convs.3.conv", 32, 3, 2, bias=True))
    levels.append(w.conv(F.relu(levels[3]), "neck.fpn_convs.4.conv", 32, 3, 2, bias=True))
    outputs = "fcos_" if old_names else "conv_"
    rows = []
    for level, (x, stride) in enumerate(zip(levels, (8, 16, 32, 64, 128), strict=True)):
        towers = {}
        for tower in ("cls", "reg"):
            y = x
            for i in range(2):
                name = f"bbox_head.{tower}_convs.{i}"
                y = w.conv(y, f"{name}.conv", 64, 3, bias=norm == "gn")
                if norm == "gn":
                    y = w.group_norm(y, f"{name}.gn")
                elif norm == "bn":
                    y = w.norm(y, f"{name}.bn")
                y = F.relu(y)
            towers[tower] = y
        scores = w.conv(towers["cls"], f"bbox_head.{outputs}cls", CLASSES, 3, bias=True).sigmoid()
        sides = w.conv(towers["reg"], f"bbox_head.{outputs}reg", 4, 3, bias=True)
        sides = sides * w(f"bbox_head.scales.{level}.scale", low=0.5, high=0.9)
        sides = F.relu(sides) * stride if norm_on_bbox else sides.exp()
        where = towers["reg"] if centerness_on_reg else towers["cls"]
        center = w.conv(where, f"bbox_head.{outputs}centerness", 1, 3, bias=True).sigmoid()
        rows.append(torch.cat([boxes(sides, stride, 0.5), by_rows(center), by_rows(scores)], 2))
    return torch.cat(rows, 1)


VARIANTS = [
    {},
    {"caffe": False, "groups": 4},
    {"bottleneck": False, "caffe": False, "norm": "bn"},
    {"norm_on_bbox": True, "centerness_on_reg": True},
    {"old_names": True, "norm": ""},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v) or "plain")
def test_every_variant(variant: dict, tmp_path) -> None:
    w = Weights(len(variant))
    x = pictures(2, 3, 64, 96)
    expected = fcos(w, x, **variant)
    torch.save({"state_dict": w.state, "meta": {"epoch": 12}}, tmp_path / "w.pth")
    loaded = load_fcos(
        tmp_path / "w.pth",
        style="caffe" if variant.get("caffe", True) else "pytorch",
        norm_on_bbox=variant.get("norm_on_bbox", False),
        centerness_on_reg=variant.get("centerness_on_reg", False),
    )
    assert (loaded.head, loaded.class_count, loaded.outputs) == ("fcos", CLASSES, ("detections",))
    assert not loaded.module.training
    actual = loaded.module(x)
    for part in (slice(0, 4), slice(4, 5), slice(5, None)):
        assert nmse(actual[..., part], expected[..., part]) <= 1e-10
    assert "style" in loaded.notes[0]


def test_options_change_what_comes_out(tmp_path) -> None:
    w = Weights()
    x = pictures(1, 3, 64, 64)
    fcos(w, x)
    torch.save(w.state, tmp_path / "w.pth")
    plain = load_fcos(tmp_path / "w.pth").module(x)
    for options in ({"style": "pytorch"}, {"norm_on_bbox": True}, {"centerness_on_reg": True}):
        assert nmse(load_fcos(tmp_path / "w.pth", **options).module(x), plain) > 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bbox_head.conv_reg.bias"), "lack 'bbox_head.conv_reg.bias'"),
        (lambda s: s.pop("backbone.conv1.weight"), "lack 'backbone.conv1.weight'"),
        (lambda s: s.pop("bbox_head.scales.2.scale"), "lack 'bbox_head.scales.2.scale'"),
        (
            lambda s: s.update({"backbone.layer2.0.conv2.conv_offset.weight": torch.ones(1)}),
            "have 'backbone.layer2.0.conv2.conv_offset.weight', for which",
        ),
        (
            lambda s: s.update({"neck.fpn_convs.1.conv.weight": torch.ones(32, 16, 3, 3)}),
            r"'neck.fpn_convs.1.conv.weight' has shape \(32, 16, 3, 3\)",
        ),
        (
            lambda s: s.update({"bbox_head.cls_convs.0.conv.weight": torch.ones(40, 32, 3, 3)}),
            "32 groups do not divide",
        ),
        (
            lambda s: s.update({"backbone.layer1.0.conv2.weight": torch.ones(16, 5, 3, 3)}),
            "reads 5 channels",
        ),
        (lambda s: [s.pop(k) for k in list(s) if "fpn_convs" in k], "'neck.fpn_convs.0'"),
        (lambda s: [s.pop(k) for k in list(s) if "layer1" in k], "'backbone.layer1.0'"),
    ],
)
def test_weights_that_do_not_fit(change, message: str, tmp_path) -> None:
    w = Weights()
    fcos(w, pictures(1, 3, 64, 64))
    change(w.state)
    torch.save(w.state, tmp_path / "w.pth")
    with pytest.raises(InvalidModelError, match=message) as caught:
        load_fcos(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
