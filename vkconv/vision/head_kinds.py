"""The kinds of detection heads: what each returns, and what its input is made of.

With ``C`` classes and ``N`` boxes. Boxes of a dense head, one or more for each cell of a grid, in
input pixels, still to be suppressed:

    yolov5, yolov7   (1, N, 5 + C)   cx, cy, w, h, objectness, classes; 3 anchors a cell
    yolov8           (1, 4 + C, N)   cx, cy, w, h, classes; no anchors, no objectness
    yolox            (1, N, 5 + C)   offsets within cells and log sizes; one box a cell
    fcos             (1, N, 5 + C)   cx, cy, w, h, centerness, classes; one box a cell
    rtmdet           (1, N, 4 + C)   cx, cy, w, h, classes; one box a cell

Final boxes, where the model itself has chosen:

    end2end          (1, N, 6)       x1, y1, x2, y2, score, class; pixels
    yolov7-end2end   (N, 7)          picture, x1, y1, x2, y2, class, score; pixels
    rtdetr-end2end   (1, N, 6)       cx, cy, w, h, score, class; fractions of the input
    boxes            boxes (1, N, 4), scores (1, N), labels (1, N), or boxes with their scores
                     (1, N, 5) and labels (1, N); x1, y1, x2, y2; pixels; also without the 1

Set predictions, one box for each query, which are not suppressed (fractions of the input):

    rtdetr           (1, N, 4 + C)   cx, cy, w, h, classes; or boxes (1, N, 4) and the classes'
                     logits (1, N, C), each class for itself (sigmoid)
    detr             boxes (1, N, 4) and logits (1, N, C + 1), the last one "none" (softmax)

Sources: the YOLOv5, YOLOv8, YOLOv10, YOLO26 and RT-DETR export formats of Ultralytics; Wang et al.,
"YOLOv7" (2022), and its export with NMS; Ge et al., "YOLOX" (2021), section 2.1 (anchor-free
decoding); Carion et al., "DETR" (2020); Zhao et al., "RT-DETR" (2023), and its export, which
D-FINE and DEIM share; the outputs of mmdeploy and torchvision; for FCOS and RTMDet, what
``vkconv convert`` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["HEAD_KINDS", "KINDS", "Fit", "HeadKind"]

Fit = Literal["center", "corner", "stretch"]
"""How a picture is put into the input: its aspect kept, with gray on both sides or right and below
alone; or stretched to fill it."""

#: of ImageNet's pictures, 0..1: what most backbones outside the YOLO family are trained with
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class HeadKind:
    """What the heads of a kind share.

    family:          "dense", "final" (rows of final boxes), "lists" (boxes, scores and labels) or
                     "queries".
    columns:         the order of a final row's values; None for others.
    pixels:          whether boxes are in pixels, or fractions of the input.
    objectness, transposed, in_cells, sole_class_is_untrained:  of dense heads: whether a box has an
                     objectness, is a column instead of a row, lies relative to the cells of a grid;
                     whether the score of a sole class says nothing.
    softmax:         of queries: whether the classes exclude each other, "none" being the last.
    input_scale, mean, std, channel_order, fit:  how its input is made, unless the model says.
    """

    family: Literal["dense", "final", "lists", "queries"] = "dense"
    columns: tuple[str, ...] | None = None
    pixels: bool = True
    objectness: bool = True
    transposed: bool = False
    in_cells: bool = False
    sole_class_is_untrained: bool = False
    softmax: bool = False
    input_scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: str = "rgb"
    fit: Fit = "center"

    @property
    def first_class(self) -> int:
        """Values of a dense head's box in front of its class scores."""
        return 5 if self.objectness else 4


_CORNERS = ("x1", "y1", "x2", "y2")
_CENTER = ("cx", "cy", "w", "h")

KINDS: dict[str, HeadKind] = {
    "yolov5": HeadKind(),
    "yolov7": HeadKind(sole_class_is_untrained=True),
    "yolov8": HeadKind(objectness=False, transposed=True),
    "yolox": HeadKind(in_cells=True, input_scale=1.0, channel_order="bgr", fit="corner"),
    "fcos": HeadKind(fit="corner"),
    "rtmdet": HeadKind(objectness=False, fit="corner"),
    "end2end": HeadKind("final", (*_CORNERS, "score", "class")),
    "yolov7-end2end": HeadKind("final", ("picture", *_CORNERS, "class", "score")),
    "rtdetr-end2end": HeadKind("final", (*_CENTER, "score", "class"), False, fit="stretch"),
    "boxes": HeadKind("lists", fit="corner"),
    "rtdetr": HeadKind("queries", pixels=False, fit="stretch"),
    "detr": HeadKind(
        "queries",
        pixels=False,
        softmax=True,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        fit="stretch",
    ),
}
HEAD_KINDS = tuple(KINDS)
