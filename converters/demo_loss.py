"""The loss the demo detector is trained with: anchor matching, CIoU, and two cross entropies.

Matching as in YOLOv5 and YOLOv7: an object belongs to every anchor whose sides differ from its
own by less than a factor of four, in the cell of its centre and in the two nearest neighbouring
cells. Boxes are pulled together by CIoU (Zheng et al. 2020), the objectness of a matched cell is
taught the overlap it reached, that of every other cell 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from vkconv.converters.demo_net import ANCHORS, STRIDES

__all__ = ["complete_iou", "detection_loss", "match"]

MAX_RATIO = 4.0
# Small cells are many and mostly empty, so their mean would be drowned without extra weight.
LEVEL_WEIGHT = (4.0, 1.0, 0.4)
BOX_GAIN, OBJECT_GAIN, CLASS_GAIN = 0.08, 0.35, 0.15


def complete_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """CIoU ``(n,)`` of two sets of boxes ``(n, 4)`` given as centre x, centre y, width, height.

    ``IoU - distance^2 / diagonal^2 - alpha * v`` with ``v = (4 / pi^2) (atan(w1/h1) -
    atan(w2/h2))^2`` and ``alpha = v / (1 - IoU + v)`` (held constant in the gradient).
    """
    low1, high1 = first[:, :2] - first[:, 2:] / 2, first[:, :2] + first[:, 2:] / 2
    low2, high2 = second[:, :2] - second[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2
    shared = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(1)
    union = first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared + 1e-7
    iou = shared / union
    hull = torch.maximum(high1, high2) - torch.minimum(low1, low2)
    distance = (first[:, :2] - second[:, :2]).square().sum(1)
    diagonal = hull.square().sum(1) + 1e-7
    angle = torch.atan(first[:, 2] / (first[:, 3] + 1e-7))
    angle = angle - torch.atan(second[:, 2] / (second[:, 3] + 1e-7))
    shape = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        alpha = shape / (1 - iou + shape + 1e-7)
    return iou - distance / diagonal - alpha * shape


def match(
    targets: torch.Tensor, anchors: torch.Tensor, stride: int, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pair the objects with cells of one level.

    Args:
        targets: ``(n, 6)``: picture, class, centre x, centre y, width, height (pixels).
        anchors: ``(3, 2)`` in pixels.
        stride: pixels per cell; the level has ``height`` x ``width`` cells.

    Returns:
        Indices ``(m,)`` of object, anchor, cell row and cell column, and the fractional position
        ``(m, 2)`` of the object's centre relative to that cell.
    """
    ratio = targets[:, None, 4:6] / anchors[None]
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < MAX_RATIO
    item, anchor = fits.nonzero(as_tuple=True)
    centre = targets[item, 2:4] / stride
    limit = torch.tensor([width, height], dtype=centre.dtype)
    into = centre % 1
    # The neighbour on the side the centre leans to, horizontally and vertically.
    left, up = ((into < 0.5) & (centre > 1)).T
    right, down = ((into > 0.5) & (centre < limit - 1)).T
    steps = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))
    chosen = torch.stack([torch.ones_like(left), left, up, right, down])
    step, pair = chosen.nonzero(as_tuple=True)
    cell = (centre[pair] + torch.tensor(steps, dtype=centre.dtype)[step] * 0.5).floor()
    cell = torch.minimum(cell.clamp(min=0), limit - 1)
    offset = centre[pair] - cell
    column, row = cell.long().T
    return item[pair], anchor[pair], row, column, offset


def detection_loss(
    raw: Sequence[torch.Tensor], targets: torch.Tensor
) -> tuple[torch.Tensor, tuple[float, float, float]]:
    """The loss of one batch, and its box, objectness and class parts for the log.

    ``raw`` is what :class:`~vkconv.converters.demo_net.DemoNet` returns in training mode,
    ``targets`` as in :func:`match`.
    """
    box_part = object_part = class_part = raw[0].new_zeros(())
    for y, shapes, stride, weight in zip(raw, ANCHORS, STRIDES, LEVEL_WEIGHT, strict=True):
        anchors = torch.tensor(shapes)
        item, anchor, row, column, offset = match(targets, anchors, stride, *y.shape[2:4])
        wanted = torch.zeros(y.shape[:4])
        if len(item):
            picture = targets[item, 0].long()
            found = y[picture, anchor, row, column]
            xy = found[:, :2].sigmoid() * 2 - 0.5
            wh = (found[:, 2:4].sigmoid() * 2).square() * anchors[anchor] / stride
            truth = torch.cat([offset, targets[item, 4:6] / stride], dim=1)
            iou = complete_iou(torch.cat([xy, wh], dim=1), truth)
            box_part = box_part + (1 - iou).mean()
            # Where two objects claim one cell the better overlap is written last and stays.
            order = iou.detach().argsort()
            reached = iou.detach().clamp(min=0)[order]
            wanted[picture[order], anchor[order], row[order], column[order]] = reached
            classes = F.one_hot(targets[item, 1].long(), found.shape[1] - 5).to(found.dtype)
            class_part = class_part + F.binary_cross_entropy_with_logits(found[:, 5:], classes)
        object_part = object_part + weight * F.binary_cross_entropy_with_logits(y[..., 4], wanted)
    total = BOX_GAIN * box_part + OBJECT_GAIN * object_part + CLASS_GAIN * class_part
    return total * raw[0].shape[0], (
        float(box_part.detach()), float(object_part.detach()), float(class_part.detach()),
    )  # fmt: skip
