"""RTMDet and RTMDet-Ins (Lyu et al. 2022), the converter's nets thinned out.

The zoo's net takes the best rows as they are, without suppression, so that several pictures can go
through at once; its masks are as large as the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.weights import build
from vkconv.converters.checkpoints.cspnext import CspNextSizes
from vkconv.converters.checkpoints.grids import Normalized
from vkconv.converters.checkpoints.rtmdet_net import (
    MaskNet,
    RtmDet,
    RtmDetIns,
    RtmDetSizes,
    taken,
)

NORMALIZED = Normalized((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
BODY = CspNextSizes(
    stem=(8, 8, 16),
    widths=(16, 24, 48, 96),
    hidden=(8, 12, 24, 48),
    blocks=(1, 1, 1, 1),
    kernel=5,
    width=32,
    pyramid_hidden=((24, 12), (24, 48)),
    pyramid_blocks=1,
)
#: RTMDet-tiny: width 0.375, depth 0.167
TINY = CspNextSizes(
    stem=(12, 12, 24),
    widths=(48, 96, 192, 384),
    hidden=(24, 48, 96, 192),
    blocks=(1, 1, 1, 1),
    kernel=5,
    width=96,
    pyramid_hidden=((96, 48), (96, 192)),
    pyramid_blocks=1,
)
KEPT = 6


def sizes_of(classes: int, **changes: object) -> RtmDetSizes:
    values = {"head_width": 32, "towers": 2, "kernel": 1, "distances": "exp", **changes}
    return RtmDetSizes(body=BODY, classes=classes, **values)


def rtmdet(classes: int = 5, seed: int = 102, **changes: object) -> nn.Module:
    """To rows of all cells."""
    return build(lambda: RtmDet(sizes_of(classes, **changes), NORMALIZED), seed)


def rtmdet_tiny(classes: int = 80, seed: int = 104) -> nn.Module:
    """To rows of all cells, in the published widths."""
    sizes = RtmDetSizes(TINY, 96, 2, 1, classes, "")
    return build(lambda: RtmDet(sizes, NORMALIZED), seed)


def rtmdet_ins(classes: int = 5, seed: int = 101) -> nn.Module:
    """To boxes, scores, labels and masks of the best instances, several pictures at once."""
    return filled(lambda: BestInstances(sizes_of(classes, masks=MaskNet()), NORMALIZED), seed)


def rtmdet_ins_suppressed(classes: int = 5, seed: int = 103) -> nn.Module:
    """The net as it is converted: one picture to rows and masks of what suppression leaves."""
    sizes = sizes_of(classes, masks=MaskNet(), distances="relu")
    net = build(lambda: RtmDetIns(sizes, NORMALIZED), seed)
    for last in net.bbox_head.rtm_reg:
        # boxes so large that most overlap
        last.bias.add_(4.0)
    return net


def filled(make, seed: int) -> nn.Module:
    """With random weights; those of the mask nets small enough for masks not to saturate."""
    net = build(make, seed)
    for last in net.bbox_head.rtm_kernel:
        last.weight.mul_(0.3)
    return net


class BestInstances(RtmDetIns):
    """``(batch, 3, h, w)`` to boxes, scores, labels and masks of the best instances."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        levels = self.levels(images)
        rows = self.rows(levels)
        scores, labels = torch.max(rows[..., 4:], 2)
        scores, best = torch.topk(scores, KEPT, 1)
        masks = self.masks(levels, best)
        masks = F.interpolate(masks, scale_factor=8.0, mode="bilinear").sigmoid()
        return taken(rows[..., :4], best), scores, torch.gather(labels, 1, best), masks
