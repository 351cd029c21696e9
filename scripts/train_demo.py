#!/usr/bin/env python3
"""Train the demo detector from nothing but a seed, and export it to ONNX.

Draws the training pictures, trains the network in its branched form, and writes it with
``vkconv.converters.export``: branches and batch norms collapsed, and the file compared with the
network as it was trained::

    python scripts/train_demo.py --minutes 34

The learning rate follows the share of ``--minutes`` (wall time) that has passed, so the schedule
completes whatever the speed of the machine; two CPU cores are assumed.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from vkconv.converters.demo_loss import detection_loss
from vkconv.converters.demo_net import DemoNet
from vkconv.converters.demo_scenes import CLASS_NAMES, TRAINING_SEED, generate_scene
from vkconv.converters.exporting import ExportReport, export

SIDE = 320
BATCH = 16
PEAK_RATE, FINAL_RATE, WARMUP = 3e-3, 6e-5, 0.04
PADDING_GRAY = 114
LOG_EVERY = 100
# (width, height) of the pictures drawn, by share: square ones, and wide or upright ones that are
# padded to a square the way the inference side does it.
FORMATS = ((SIDE, SIDE),) * 7 + ((SIDE, 184), (SIDE, 240), (240, SIDE))

Scene = tuple[np.ndarray, np.ndarray]


def draw_scene(seed: int) -> Scene:
    """One training picture uint8 ``(320, 320, 3)`` and its targets float32 ``(n, 5)``.

    A target is class, centre x, centre y, width, height in pixels.
    """
    width, height = FORMATS[seed % len(FORMATS)]
    picture, boxes, labels = generate_scene(seed, (width, height))
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    square = np.full((SIDE, SIDE, 3), PADDING_GRAY, np.uint8)
    square[top : top + height, left : left + width] = picture
    boxes = boxes + np.array([left, top, left, top], np.float32)
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return square, np.concatenate([labels[:, None], middle, extent], axis=1).astype(np.float32)


def draw_scenes(count: int, seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """``count`` pictures uint8 ``(count, 320, 320, 3)`` with their targets, on two processes."""
    first = TRAINING_SEED + seed * 50_000
    pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
    targets = []
    with multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = pool.imap(draw_scene, range(first, first + count), chunksize=16)
        for index, (picture, target) in enumerate(drawn):
            pictures[index] = picture
            targets.append(torch.from_numpy(target))
    return torch.from_numpy(pictures), targets


def augment(
    pictures: torch.Tensor, targets: list[torch.Tensor], side: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch at ``side`` pixels: zoom, shift, flip and colour of each picture varied.

    Returns float32 ``(b, 3, side, side)`` in 0..1 and targets ``(n, 6)`` with the index of the
    picture first. Objects of which less than 40 % stay inside are no longer asked for.
    """
    count = len(pictures)
    # zoom > 1 enlarges. In the sampling grid -1..1 spans the picture: source = grid / zoom + shift.
    zoom = np.exp(rng.uniform(math.log(0.65), math.log(1.45), count)).astype(np.float32)
    zoom[rng.random(count) < 0.3] = 1.0
    spare = np.abs(1 - 1 / zoom)[:, None]
    shift = (rng.uniform(-1, 1, (count, 2)) * spare).astype(np.float32)
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0).astype(np.float32)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = flip / zoom, 1 / zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(torch.from_numpy(theta), [count, 3, side, side], align_corners=False)
    gray = PADDING_GRAY / 255
    images = pictures.permute(0, 3, 1, 2).float().div_(255).sub_(gray)
    images = F.grid_sample(images, grid, align_corners=False).add_(gray)
    gain = 1 + rng.normal(0, 0.1, (count, 1, 1, 1)) + rng.normal(0, 0.04, (count, 3, 1, 1))
    offset = rng.normal(0, 0.04, (count, 1, 1, 1))
    images = images.mul_(torch.from_numpy(gain.astype(np.float32)))
    images = images.add_(torch.from_numpy(offset.astype(np.float32))).clamp_(0, 1)

    rows = []
    for index, target in enumerate(targets):
        low = (target[:, 1:3] - target[:, 3:5] / 2) / SIDE * 2 - 1
        high = (target[:, 1:3] + target[:, 3:5] / 2) / SIDE * 2 - 1
        scale = torch.tensor([flip[index], 1.0]) * float(zoom[index])
        ends = torch.stack([(low - torch.from_numpy(shift[index])) * scale,
                            (high - torch.from_numpy(shift[index])) * scale])  # fmt: skip
        low, high = ends.amin(0), ends.amax(0)
        cut_low, cut_high = low.clamp(-1, 1), high.clamp(-1, 1)
        extent = (cut_high - cut_low) * side / 2
        share = (cut_high - cut_low).prod(1) / (high - low).prod(1)
        keep = (share > 0.4) & (extent.amin(1) > 3)
        middle = ((cut_low + cut_high) / 2 + 1) * side / 2
        head = torch.stack([torch.full_like(target[:, 0], index), target[:, 0]], dim=1)
        rows.append(torch.cat([head, middle, extent], dim=1)[keep])
    return images.contiguous(memory_format=torch.channels_last), torch.cat(rows)


class MovingAverage:
    """Exponential moving average of a network's parameters and batch statistics."""

    def __init__(self, net: DemoNet) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.steps = 0

    @torch.no_grad()
    def update(self, net: DemoNet) -> None:
        """Move towards ``net``; slowly later on, quickly while there is little history."""
        self.steps += 1
        keep = 0.998 * (1 - math.exp(-self.steps / 300))
        for mine, theirs in zip(
            self.net.state_dict().values(), net.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - keep)


def learning_rate(progress: float) -> float:
    """Linear warm-up, then half a cosine, over ``progress`` in 0..1."""
    if progress < WARMUP:
        return PEAK_RATE * (progress / WARMUP + 0.01)
    wave = 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - WARMUP) / (1 - WARMUP)))
    return FINAL_RATE + (PEAK_RATE - FINAL_RATE) * wave


def train(
    pictures: torch.Tensor, targets: list[torch.Tensor], seconds: float, seed: int
) -> tuple[DemoNet, int]:
    """Train for ``seconds`` of wall time; the averaged network and the number of steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = DemoNet(len(CLASS_NAMES)).to(memory_format=torch.channels_last)
    average = MovingAverage(net)
    # Offsets are in pixels: at the full rate they run away before the features have formed.
    offsets = list(net.adapt4.offset.parameters())
    slow = {id(p) for p in offsets}
    others = [p for p in net.parameters() if id(p) not in slow]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": 0.03, "share": 1.0},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "share": 1.0},
            {"params": offsets, "weight_decay": 0.0, "share": 0.1},
        ],
        lr=PEAK_RATE,
    )
    start, step, order = time.perf_counter(), 0, np.empty(0, np.int64)
    recent = np.zeros(3)
    net.train()
    while (elapsed := time.perf_counter() - start) < seconds:
        progress = elapsed / seconds
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress) * group["share"]
        if len(order) < BATCH:
            order = rng.permutation(len(pictures))
        chosen, order = order[:BATCH], order[BATCH:]
        # Small pictures first: more steps for the same time, and objects of more sizes.
        side = SIDE if progress > 0.65 else int(rng.choice([224, 256, 256, 288, 320]))
        images, wanted = augment(pictures[chosen], [targets[i] for i in chosen], side, rng)
        loss, parts = detection_loss(net(images), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        average.update(net)
        step += 1
        recent += np.array(parts) / LOG_EVERY
        if step % LOG_EVERY == 0:
            box, objectness, classes = recent
            recent = np.zeros(3)
            print(
                f"{elapsed:6.0f} s  step {step:5d}  {progress:5.1%}  box {box:.3f}  "
                f"objectness {objectness:.4f}  class {classes:.4f}", flush=True,
            )  # fmt: skip
    return average.net, step


def export_demo(net: DemoNet, path: Path) -> ExportReport:
    """Write ``net`` the way any trained module is: collapsed, exported, fused, verified."""
    net = copy.deepcopy(net).to(memory_format=torch.contiguous_format).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = generate_scene(TRAINING_SEED - 1, SIDE)[0].astype(np.float32) / 255
    return export(
        net,
        torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous(),
        path,
        classes=CLASS_NAMES,
        head="yolov7",
        input_scale=1 / 255,
        input_names=["images"],
        output_names=["output"],
    )


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=34.0, help="wall time for everything")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and the training")
    parser.add_argument("--out", type=Path, default=Path("vkconv/data/demo.onnx"), help="the model")
    parser.add_argument("--save-checkpoint", type=Path, help="also write the branched weights")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    start = time.perf_counter()
    count = int(np.clip(arguments.minutes * 190, 400, 5000))
    pictures, targets = draw_scenes(count, arguments.seed)
    drawing = time.perf_counter() - start
    print(f"drew {count} pictures in {drawing:.0f} s", flush=True)
    net, steps = train(pictures, targets, arguments.minutes * 60 - drawing - 10, arguments.seed)
    if arguments.save_checkpoint:
        torch.save(net.state_dict(), arguments.save_checkpoint)
    print(export_demo(net, arguments.out))
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")
    minutes = (time.perf_counter() - start) / 60
    print(f"{steps} steps of {BATCH} pictures; {minutes:.1f} minutes in total")


if __name__ == "__main__":
    main()
