"""RTMDet and RTMDet-Ins from mmdetection's names, against the networks written with functions."""

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
    points,
)
from vkconv.converters.checkpoints.rtmdet import load_rtmdet, load_rtmdet_ins
from vkconv.errors import InvalidModelError

CLASSES = 4
WIDTH = 16
MEAN, DEVIATION = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


def block(w: Weights, x: Tensor, name: str, outputs: int, *how: int) -> Tensor:
    return F.silu(w.norm(w.conv(x, f"{name}.conv", outputs, *how), f"{name}.bn"))


def csp(
    w: Weights, x: Tensor, name: str, outputs: int, count: int, adds: bool, attends: bool
) -> Tensor:
    half = outputs // 2
    short = block(w, x, f"{name}.short_conv", half)
    y = block(w, x, f"{name}.main_conv", half)
    for i in range(count):
        z = block(w, y, f"{name}.blocks.{i}.conv1", half, 3)
        z = block(w, z, f"{name}.blocks.{i}.conv2.depthwise_conv", half, 5, 1, half)
        z = block(w, z, f"{name}.blocks.{i}.conv2.pointwise_conv", half)
        y = y + z if adds else z
    y = torch.cat([y, short], 1)
    if attends:
        average = y.mean((2, 3), keepdim=True)
        y = y * F.hardsigmoid(w.conv(average, f"{name}.attention.fc", outputs, bias=True))
    return block(w, y, f"{name}.final_conv", outputs)


def levels_of(w: Weights, rgb: Tensor, stages: int) -> list[Tensor]:
    """What leaves the pyramid: maps of stride 8 and up."""
    x = rgb.double().flip(1) * 255 - torch.tensor(MEAN).double().view(3, 1, 1)
    x = x / torch.tensor(DEVIATION).double().view(3, 1, 1)
    for i, (outputs, stride) in enumerate(((8, 2), (8, 1), (16, 1))):
        x = block(w, x, f"backbone.stem.{i}", outputs, 3, stride)
    maps = []
    widths = (16, 24, 32, 40, 48)[:stages]
    for stage, width in enumerate(widths):
        name, is_last = f"backbone.stage{stage + 1}", stage == stages - 1
        x = block(w, x, f"{name}.0", width, 3, 2)
        if is_last:
            y = block(w, x, f"{name}.1.conv1", width // 2)
            pools = [F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)]
            x = block(w, torch.cat([y, *pools], 1), f"{name}.1.conv2", width)
        x = csp(w, x, f"{name}.{2 if is_last else 1}", width, 2 if stage else 1, not is_last, True)
        maps.append(x)
    maps, widths = maps[1:], widths[1:]
    top = maps[-1]
    kept = []
    for i, fine in enumerate(range(len(maps) - 2, -1, -1)):
        top = block(w, top, f"neck.reduce_layers.{i}", widths[fine])
        kept.insert(0, top)
        top = torch.cat([F.interpolate(top, scale_factor=2.0), maps[fine]], 1)
        top = csp(w, top, f"neck.top_down_blocks.{i}", widths[fine], 1, False, False)
    outs = [top]
    for i, coarse in enumerate(kept):
        down = block(w, outs[-1], f"neck.downsamples.{i}", widths[i], 3, 2)
        joined = torch.cat([down, coarse], 1)
        outs.append(csp(w, joined, f"neck.bottom_up_blocks.{i}", widths[i + 1], 1, False, False))
    return [block(w, x, f"neck.out_convs.{i}", WIDTH, 3) for i, x in enumerate(outs)]


def tower(w: Weights, x: Tensor, what: str, level: int, width: int, *, shared: bool) -> Tensor:
    """Two convolutions; with ``shared`` those of the first level, which files hold for each."""
    for i in range(2):
        name = f"bbox_head.{what}_convs.{level}.{i}"
        if shared and level:
            first = w.state[f"bbox_head.{what}_convs.0.{i}.conv.weight"]
            w.state.setdefault(f"{name}.conv.weight", first)
        x = block(w, x, name, width, 3)
    return x


def rtmdet(
    w: Weights,
    rgb: Tensor,
    distances: str,
    *,
    stages: int = 4,
    width: int = 24,
    objectness: bool = False,
) -> Tensor:
    rows = []
    for level, x in enumerate(levels_of(w, rgb, stages)):
        stride = 8 << level
        by_class = tower(w, x, "cls", level, width, shared=True)
        scores = w.conv(by_class, f"bbox_head.rtm_cls.{level}", CLASSES, bias=True).sigmoid()
        by_side = tower(w, x, "reg", level, width, shared=True)
        if objectness:
            there = w.conv(by_side, f"bbox_head.rtm_obj.{level}", 1, bias=True).sigmoid()
            scores = (scores * there).sqrt()
        sides = w.conv(by_side, f"bbox_head.rtm_reg.{level}", 4, bias=True)
        sides = {"exp": torch.exp, "relu": F.relu, "": lambda d: d}[distances](sides) * stride
        rows.append(torch.cat([boxes(sides, stride, 0.0), by_rows(scores)], 2))
    return torch.cat(rows, 1)


@pytest.mark.parametrize(
    ("distances", "options", "how"),
    [
        ("", {}, {}),
        ("exp", {"exp_on_reg": True}, {"stages": 5, "objectness": True}),
        ("exp", {}, {"width": 256}),
    ],
)
def test_every_variant(distances: str, options: dict, how: dict, tmp_path) -> None:
    w = Weights(3)
    x = pictures(2, 3, 64, 128)
    expected = rtmdet(w, x, distances, **how)
    torch.save({"state_dict": w.state}, tmp_path / "w.pth")
    loaded = load_rtmdet(tmp_path / "w.pth", **options)
    assert (loaded.head, loaded.class_count, loaded.outputs) == ("rtmdet", CLASSES, ("detections",))
    assert loaded.size_step == (64 if how.get("stages") == 5 else 32)
    actual = loaded.module(x)
    assert nmse(actual[..., :4], expected[..., :4]) <= 1e-10
    assert nmse(actual[..., 4:], expected[..., 4:]) <= 1e-10
    # what had to be assumed is said
    assert ("--exp-on-reg" in "".join(loaded.notes)) == (not options)


def masks(w: Weights, levels: list[Tensor], kernels: Tensor, cell: int) -> Tensor:
    """The mask (h, w) of one cell, counted over all levels of one picture, without grouping."""
    size = levels[0].shape[2:]
    larger = [levels[0]] + [F.interpolate(x, size, mode="bilinear") for x in levels[1:]]
    name = "bbox_head.mask_head"
    x = w.conv(torch.cat(larger, 1), f"{name}.fusion_conv", WIDTH, bias=True)
    for i in range(4):
        x = block(w, x, f"{name}.stacked_convs.{i}", 24, 3)
    x = w.conv(x, f"{name}.projection", 8, bias=True)
    before = 0
    for level, other in enumerate(levels):
        count = other.shape[2] * other.shape[3]
        if cell < before + count:
            row, column = divmod(cell - before, other.shape[3])
            stride = 8 << level
            break
        before += count
    px, py = points(*size, 8, 0.0)
    seen = torch.stack([column * stride - px, row * stride - py]) / (8 * stride)
    x = torch.cat([seen[None], x], 1)
    parts = kernels[0, cell].split([80, 64, 8, 8, 8, 1])
    for i, (inputs, outputs) in enumerate(((10, 8), (8, 8), (8, 1))):
        weight = parts[i].reshape(outputs, inputs, 1, 1)
        x = F.conv2d(x, weight, parts[3 + i])
        x = F.relu(x) if i < 2 else x
    return x[0, 0]


def rtmdet_ins(w: Weights, rgb: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    levels = levels_of(w, rgb, 4)
    rows, kernels = [], []
    for level, x in enumerate(levels):
        stride = 8 << level
        by_class = tower(w, x, "cls", level, 24, shared=True)
        scores = w.conv(by_class, f"bbox_head.rtm_cls.{level}", CLASSES, bias=True).sigmoid()
        by_side = tower(w, x, "reg", level, 24, shared=True)
        # boxes so large that many overlap
        w(f"bbox_head.rtm_reg.{level}.bias", 4, low=4.0, high=6.0)
        sides = F.relu(w.conv(by_side, f"bbox_head.rtm_reg.{level}", 4, bias=True)) * stride
        rows.append(torch.cat([boxes(sides, stride, 0.0), by_rows(scores)], 2))
        of_kernel = tower(w, x, "kernel", level, 24, shared=False)
        kernels.append(by_rows(w.conv(of_kernel, f"bbox_head.rtm_kernel.{level}", 169, bias=True)))
    return torch.cat(rows, 1), torch.cat(kernels, 1), levels


def suppressed(rows: Tensor) -> list[int]:
    """Greedy suppression of each class by itself, best first: the rows (n, 4 + c) that remain."""
    scores, labels = rows[:, 4:].max(1)
    low, high = rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if scores[i] <= 0.05 or len(kept) == 100:
            break
        for j in kept:
            shared = (torch.minimum(high[i], high[j]) - torch.maximum(low[i], low[j])).clamp(0)
            union = rows[i, 2:4].prod() + rows[j, 2:4].prod() - shared.prod()
            if labels[i] == labels[j] and shared.prod() / union > 0.6:
                break
        else:
            kept.append(i)
    return kept


def test_instances_and_their_masks(tmp_path) -> None:
    w = Weights(4)
    x = pictures(1, 3, 64, 96)
    rows, kernels, levels = rtmdet_ins(w, x)
    kept = suppressed(rows[0])
    assert 10 < len(kept) < 100
    expected = torch.stack([masks(w, levels, kernels, cell) for cell in kept])
    torch.save(w.state, tmp_path / "w.pth")
    loaded = load_rtmdet_ins(tmp_path / "w.pth")
    assert loaded.outputs == ("detections", "masks") and loaded.fixed_batch
    found, found_masks = loaded.module(x)
    assert found.shape == (1, 100, 4 + CLASSES) and found_masks.shape == (1, 100, 8, 12)
    assert nmse(found[0, : len(kept)], rows[0, kept]) <= 1e-10
    assert not found[0, len(kept) :].any()
    assert nmse(found_masks[0, : len(kept)], expected) <= 1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bbox_head.rtm_reg.1.weight"), "lack 'bbox_head.rtm_reg.1.weight'"),
        (lambda s: s.pop("backbone.stem.2.conv.weight"), "lack 'backbone.stem.2.conv.weight'"),
        (
            lambda s: s.update({"neck.out_convs.3.conv.weight": torch.ones(16, 16, 3, 3)}),
            "have 4 parts 'neck.out_convs.0'",
        ),
        (lambda s: s.update({"optimizer": torch.ones(1)}), "have 'optimizer', for which"),
        (
            lambda s: s.update({"backbone.stage1.1.final_conv.conv.weight": torch.ones(4)}),
            "'backbone.stage1.1.final_conv.conv.weight' has shape",
        ),
    ],
)
def test_weights_that_do_not_fit(change, message: str, tmp_path) -> None:
    w = Weights()
    rtmdet(w, pictures(1, 3, 32, 32), "")
    change(w.state)
    torch.save(w.state, tmp_path / "w.pth")
    with pytest.raises(InvalidModelError, match=message):
        load_rtmdet(tmp_path / "w.pth")


def test_the_two_kinds_are_told_apart(tmp_path) -> None:
    w = Weights()
    levels = rtmdet_ins(w, pictures(1, 3, 32, 32))
    masks(w, levels[2], levels[1], 0)
    torch.save(w.state, tmp_path / "ins.pth")
    with pytest.raises(InvalidModelError, match="convert them as rtmdet-ins"):
        load_rtmdet(tmp_path / "ins.pth")
    plain = Weights()
    rtmdet(plain, pictures(1, 3, 32, 32), "")
    torch.save(plain.state, tmp_path / "plain.pth")
    with pytest.raises(InvalidModelError, match="mask_head"):
        load_rtmdet_ins(tmp_path / "plain.pth")
    w.state["bbox_head.rtm_kernel.0.weight"] = torch.ones(170, 24, 1, 1)
    torch.save(w.state, tmp_path / "odd.pth")
    with pytest.raises(InvalidModelError, match="170 numbers"):
        load_rtmdet_ins(tmp_path / "odd.pth")
