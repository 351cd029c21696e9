"""YOLOv7 from its cfg: the rows of the yaml become the modules of a network.

The network keeps the indices of the cfg's layers, so that weights fit by name
(``model.105.m.0.weight``). Layers that nothing needs at inference, the auxiliary heads above all,
are there to be checked against the weights and are dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from vkconv.converters.checkpoints import yolov7_layers as layers
from vkconv.converters.checkpoints.yolov7_cfg import Cfg, Row
from vkconv.converters.checkpoints.yolov7_factory import LayerFactory
from vkconv.errors import InvalidModelError

__all__ = ["YoloV7", "build_yolov7"]

#: rows of pixels of the picture from which the strides are read
_PROBE = 256


class YoloV7(nn.Module):
    """``(b, 3, h, w)`` RGB in 0..1, sides multiples of the largest stride, to decoded rows.

    The rows are ``(b, n, 5 + classes)``: cx, cy, w, h in pixels, objectness, class scores.
    """

    def __init__(self, rows: Sequence[Row], modules: Sequence[nn.Module], classes: int) -> None:
        super().__init__()
        self.rows = tuple(rows)
        self.classes = classes
        self.model = nn.ModuleList(modules)

    @property
    def detect(self) -> layers.AnchorDetect:
        """The head, which is the last layer."""
        head = self.model[len(self.model) - 1]
        assert isinstance(head, layers.AnchorDetect)
        return head

    def drop_unused(self) -> list[Row]:
        """Take away the layers the head does not need (auxiliary heads); returns their rows."""
        head = self.rows[-1]
        # the second half of what IAuxDetect reads is auxiliary
        needed = {head.index, *head.sources[: len(self.detect.m)]}
        for row in reversed(self.rows[:-1]):
            if row.index in needed:
                needed.update(row.sources)
        unused = [row for row in self.rows if row.index not in needed]
        for row in unused:
            self.model[row.index] = nn.Identity().eval()
        return unused

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) -> (b, n, 5 + classes)``."""
        return self.detect(self.features(images))

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps that the head reads."""
        last_use = {source: row.index for row in self.rows for source in row.sources}
        kept: dict[int, torch.Tensor] = {-1: images}
        for row, module in zip(self.rows[:-1], self.model, strict=False):
            if row.index not in last_use:
                continue
            inputs = [kept[source] for source in row.sources]
            try:
                kept[row.index] = module(inputs if _takes_list(module) else inputs[0])
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise InvalidModelError(f"{row} does not fit its input: {reason}") from error
            for source in row.sources:
                if last_use[source] == row.index:
                    kept.pop(source, None)
        return [kept[source] for source in self.rows[-1].sources[: len(self.detect.m)]]


def _takes_list(module: nn.Module) -> bool:
    return isinstance(module, layers.Concat | layers.Shortcut)


def build_yolov7(cfg: Cfg, names: Collection[str] | None = None, *, classes: int = 0) -> YoloV7:
    """The network of a cfg, in eval mode, without memory for its weights (on the meta device).

    names:    the keys of the weights it is built for. A layer whose batch normalization they lack
              is built fused, as weights of a network in deploy form want it.
    classes:  instead of the cfg's.

    Raises InvalidModelError naming the layer that is unknown or does not fit.
    """
    factory = LayerFactory(cfg, names, classes or cfg.classes)
    with torch.device("meta"):
        network = YoloV7(cfg.rows, [factory.layer(row) for row in cfg.rows], factory.classes).eval()
        network.requires_grad_(False)
        probe = torch.zeros(1, factory.channels_of_picture, _PROBE, _PROBE)
        maps = network.features(probe)
    network.detect.strides = tuple(_stride(x, cfg.rows[-1]) for x in maps)
    return network


def _stride(x: torch.Tensor, head: Row) -> int:
    height, width = x.shape[2:]
    if height != width or height < 1 or _PROBE % height:
        raise InvalidModelError(
            f"{head}: a map of {_PROBE} / {height} pixels is no level of a head"
        )
    return _PROBE // height
