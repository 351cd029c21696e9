"""The nets of ``test_zoo``: how each is made, fed and exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tests.models import concatenated, context, detr3d, fcos, mobile, rtmdet_ins, shufflenet
from tests.models import text_conv as text
from tests.models.comparison import images
from tests.models.export import INPUT, OPEN_AXES, OpenAxes

Feeds = dict[str, NDArray[np.generic]]
#: inputs of a net for a batch, a size and a seed
Inputs = Callable[[int, int, int], Feeds]


@dataclass(frozen=True)
class Net:
    """A net and the two inputs (batch, size) it is tested with.

    open_axes: what a dynamic export leaves open; without it each input has an export of its own.
    ranked: outputs whose rows come in the order of the first of them, a score; rows that score the
    same may change places.
    least_opset: of the operators it takes.
    """

    name: str
    make: Callable[[], nn.Module]
    outputs: tuple[str, ...] = ("output",)
    inputs: Inputs = lambda batch, size, seed: {INPUT: images(batch, 3, size, size + 32, seed=seed)}
    open_axes: Mapping[str, OpenAxes] | None = field(default_factory=lambda: {INPUT: OPEN_AXES})
    shapes: tuple[tuple[int, int], ...] = ((1, 64), (2, 96))
    ranked: tuple[str, ...] = ()
    least_opset: int = 11


def words(batch: int, length: int, seed: int) -> Feeds:
    random = np.random.default_rng([seed, batch, length])
    return {"words": random.integers(0, text.WORDS, (batch, length), np.int64)}


def cameras(batch: int, size: int, seed: int) -> Feeds:
    return {
        INPUT: images(batch, detr3d.VIEWS, 3, size, size + 32, seed=seed),
        "projections": detr3d.projections(batch, seed),
    }


DETECTIONS = ("boxes", "scores", "labels")
NETS = (
    Net("aspp", context.aspp),
    Net("rfb", context.rfb),
    Net("spp", context.spp),
    Net("vovnet", concatenated.vovnet),
    Net("densenet", concatenated.densenet),
    Net("unet_plus_plus", concatenated.unet_plus_plus, ("first", "second", "third")),
    Net("shufflenet_v2", shufflenet.shufflenet_v2),
    Net("mobilenet_v3", mobile.mobilenet_v3),
    Net("efficientnet_b0", mobile.efficientnet_b0),
    Net(
        "text_conv",
        text.text_conv,
        ("logits", "label"),
        words,
        {"words": {0: ("batch", 1), 1: ("length", 8)}},
        ((1, 16), (2, 40)),
    ),
    Net("fcos", fcos.fcos, DETECTIONS, ranked=("scores", "boxes", "labels")),
    Net("fcos_nms", fcos.fcos_nms, (*DETECTIONS, "image")),
    Net(
        "rtmdet_ins",
        rtmdet_ins.rtmdet_ins,
        (*DETECTIONS, "masks"),
        open_axes=None,
        ranked=("scores", "boxes", "labels", "masks"),
    ),
    Net(
        "detr3d",
        detr3d.detr3d,
        ("classes", "boxes"),
        cameras,
        {
            INPUT: {0: ("batch", 1), 3: ("height", 32), 4: ("width", 32)},
            "projections": {0: ("batch", 1)},
        },
        least_opset=16,
    ),
)


def examples(net: Net, batch: int, size: int) -> dict[str, torch.Tensor]:
    """Inputs to export with."""
    return {name: torch.from_numpy(a) for name, a in net.inputs(batch, size, 1).items()}
