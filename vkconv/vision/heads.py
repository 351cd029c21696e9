"""Detection heads: which one a model has, and what its numbers mean.

``choose_head`` looks at metadata and output shapes, ``decode`` turns one output tensor into boxes
in input pixels. Understood, with ``C`` classes and ``N`` candidate boxes:

    yolov5, yolov7   (1, N, 5 + C)   cx, cy, w, h, objectness, classes; pixels; 3 anchors a cell
    yolov8           (1, 4 + C, N)   cx, cy, w, h, classes; pixels; no anchors, no objectness
    yolox            (1, N, 5 + C)   offsets within cells and log sizes; one box a cell
    fcos             (1, N, 5 + C)   cx, cy, w, h, centerness, classes; pixels; one box a cell
    rtmdet           (1, N, 4 + C)   cx, cy, w, h, classes; pixels; one box a cell

The last two are told by metadata only. Sources: the YOLOv5 and YOLOv8 export formats of
Ultralytics; Wang et al., "YOLOv7" (2022); Ge et al., "YOLOX" (2021), section 2.1 (anchor-free
decoding); for FCOS and RTMDet, what ``vkconv convert`` writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from vkconv.vision.detections import Detections
from vkconv.vision.labels import default_class_names, metadata_class_names

__all__ = ["HEAD_KINDS", "HeadSpec", "choose_head", "decode"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the heads of a kind share: whether a box has an objectness, is a column instead of a
    row, lies relative to the cells of a grid; whether the score of a sole class says nothing. The
    others are HeadSpec's."""

    objectness: bool = True
    columns: bool = False
    in_cells: bool = False
    sole_class_is_untrained: bool = False
    input_scale: float = 1.0 / 255.0
    channel_order: str = "rgb"
    centered: bool = True

    @property
    def first_class(self) -> int:
        """Values of a box in front of its class scores."""
        return 5 if self.objectness else 4


_LAYOUTS = {
    "yolov5": _Layout(),
    "yolov7": _Layout(sole_class_is_untrained=True),
    "yolov8": _Layout(objectness=False, columns=True),
    "yolox": _Layout(in_cells=True, input_scale=1.0, channel_order="bgr", centered=False),
    "fcos": _Layout(centered=False),
    "rtmdet": _Layout(objectness=False, centered=False),
}
HEAD_KINDS = tuple(_LAYOUTS)
STRIDES = (8, 16, 32)

_UNDERSTOOD = (
    "understood are one image's (1, N, 5+C) of YOLOv5, YOLOv7 and YOLOX and (1, 4+C, N) of YOLOv8, "
    "or the metadata vkconv.head = " + "|".join(HEAD_KINDS)
)


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How to feed a detector and how to read what it returns.

    kind:           one of HEAD_KINDS.
    output:         name of the output that holds the boxes.
    class_names:    one for each class; their number is the model's C.
    input_scale:    multiplier from 0..255 to what the model takes.
    channel_order:  "rgb" or "bgr".
    centered:       whether the letterbox pads on both sides (else right and below only).
    """

    kind: str
    output: str
    class_names: tuple[str, ...]
    input_scale: float = 1.0 / 255.0
    channel_order: str = "rgb"
    centered: bool = True


def choose_head(
    outputs: Mapping[str, Sequence[int]],
    metadata: Mapping[str, str] | None = None,
    *,
    input_size: tuple[int, int] | None = None,
) -> HeadSpec:
    """Tell a model's head from its metadata, else from its output shapes.

    outputs:     name -> concrete shape, in the model's order.
    metadata:    the model's metadata_props. Read are ``vkconv.head``, ``vkconv.classes``,
                 ``vkconv.input_scale`` and Ultralytics' ``task`` and ``names``.
    input_size:  (width, height) in pixels. With it YOLOX, which has one candidate a cell, is told
                 from YOLOv5 and v7, which have three, although their shapes look alike.

    Raises UnsupportedModelError, listing what is understood, for a head that is none of these, and
    InvalidModelError for metadata that is malformed or contradicts the shapes.
    """
    metadata = metadata or {}
    _refuse_other_tasks(metadata)
    kind = metadata.get("vkconv.head", "").strip().lower()
    if kind and kind not in HEAD_KINDS:
        raise UnsupportedModelError(f"the model's vkconv.head is '{_short(kind)}'; {_UNDERSTOOD}")
    names = metadata_class_names(metadata)
    output = _box_output(outputs)
    _, rows, columns = outputs[output]
    if not kind:
        kind = _kind_from_shape(rows, columns, len(names) if names else None, input_size)

    layout = _LAYOUTS[kind]
    count = (rows if layout.columns else columns) - layout.first_class
    if count < 1:
        raise UnsupportedModelError(
            f"output '{_short(output)}' of shape (1, {rows}, {columns}) leaves no class scores for "
            f"a {kind} head; {_UNDERSTOOD}"
        )
    if names is not None and len(names) != count:
        raise InvalidModelError(
            f"the metadata names {len(names)} classes, but output '{_short(output)}' of shape "
            f"(1, {rows}, {columns}) has {count} as a {kind} head; {_UNDERSTOOD}"
        )
    return HeadSpec(
        kind=kind,
        output=output,
        class_names=names or default_class_names(count),
        input_scale=_input_scale(metadata, layout.input_scale),
        channel_order=layout.channel_order,
        centered=layout.centered,
    )


def decode(
    output: NDArray[Any],
    head: HeadSpec,
    *,
    input_size: tuple[int, int],
    confidence: float = 0.25,
) -> Detections:
    """One output tensor -> candidate boxes in *input* pixels, each with its best class.

    output:      the tensor of ``head.output``; any float type.
    input_size:  (width, height) of the model's input, in pixels.
    confidence:  0..1; rows below it are left out. It is objectness (for FCOS, centerness) * class
                 score, for YOLOv8 and RTMDet the class score alone, and for a YOLOv7 of one class
                 the objectness alone, because YOLOv7 does not train the class score then.

    Rows with a value that is not finite, and boxes without area, are left out. Nothing is
    suppressed yet: see ``non_maximum_suppression``. Raises InvalidInputError when the tensor does
    not have the shape the head was chosen for.
    """
    count = len(head.class_names)
    layout = _LAYOUTS[head.kind]
    first_class = layout.first_class
    if output.ndim != 3 or output.shape[0] != 1:
        values = first_class + count
        expected = f"(1, {values}, N)" if layout.columns else f"(1, N, {values})"
        raise InvalidInputError(
            f"output '{head.output}' has shape {output.shape}; a {head.kind} head is {expected}"
        )
    rows = output[0].T if layout.columns else output[0]
    if rows.shape[1] != first_class + count:
        raise InvalidInputError(
            f"output '{head.output}' has {rows.shape[1]} values a box; a {head.kind} head with "
            f"{count} classes has {first_class + count}"
        )
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32, copy=False)
    geometry = _decode_grid(rows, input_size) if layout.in_cells else rows[:, :4]
    scores = rows[:, first_class:]
    class_ids = np.argmax(scores, axis=1).astype(np.int64)
    # Untrusted numbers: overflow and NaN are expected here, and filtered.
    with np.errstate(over="ignore", invalid="ignore"):
        best = np.take_along_axis(scores, class_ids[:, np.newaxis], axis=1)[:, 0]
        if layout.objectness:
            sole = layout.sole_class_is_untrained and count == 1
            best = rows[:, 4] if sole else rows[:, 4] * best
        # NaN compares false, so its rows go here; few rows are left for the dearer checks.
        likely = np.flatnonzero(best >= confidence)
        centers, half = geometry[likely, :2], geometry[likely, 2:] * np.float32(0.5)
        boxes = np.concatenate((centers - half, centers + half), axis=1)
        keep = (
            np.isfinite(rows[likely]).all(axis=1)
            & np.isfinite(boxes).all(axis=1)
            & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        )
    return Detections(
        boxes[keep], np.minimum(best[likely[keep]], np.float32(1.0)), class_ids[likely[keep]]
    )


def _decode_grid(rows: NDArray[np.float32], input_size: tuple[int, int]) -> NDArray[np.float32]:
    """YOLOX: center = (offset + cell) * stride, size = exp(log size) * stride; (N, 4) in pixels.

    Cells run row by row, the finest stride first.
    """
    width, height = input_size
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack((x.ravel(), y.ravel()), axis=1))
        strides.append(np.full((x.size, 1), stride))
    cell = np.concatenate(cells).astype(np.float32)
    stride_column = np.concatenate(strides).astype(np.float32)
    if len(cell) != len(rows):
        raise InvalidInputError(
            f"a yolox head on an input of {width}x{height} has {len(cell)} boxes (strides 8, 16, "
            f"32), but the model returned {len(rows)}; set vkconv.head to what it is"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        centers = (rows[:, :2] + cell) * stride_column
        sizes = np.exp(rows[:, 2:4]) * stride_column
    return np.concatenate((centers, sizes), axis=1)


def _kind_from_shape(
    rows: int, columns: int, classes: int | None, input_size: tuple[int, int] | None
) -> str:
    cells = -1
    if input_size is not None:
        width, height = input_size
        cells = sum((width // stride) * (height // stride) for stride in STRIDES)
    row_major = classes is None or columns == 5 + classes
    column_major = classes is None or rows == 4 + classes
    if row_major and column_major:
        # Very small inputs have fewer boxes than values a box, so the number of boxes that the
        # input's size implies speaks first and the longer axis second.
        boxes_first = rows in (cells, 3 * cells) or (columns != cells and rows > columns)
        row_major, column_major = boxes_first, columns == cells or rows < columns
    if row_major:
        return "yolox" if rows == cells else "yolov5"
    if column_major:
        return "yolov8"
    known = "" if classes is None else f" with {classes} classes"
    raise UnsupportedModelError(
        f"cannot tell the detection head from an output of shape (1, {rows}, {columns}){known}; "
        + _UNDERSTOOD
    )


def _box_output(outputs: Mapping[str, Sequence[int]]) -> str:
    """The one output that can hold boxes; YOLOv5 and v7 exports may list raw maps beside it."""
    fitting = [name for name, shape in outputs.items() if len(shape) == 3]
    single = [name for name in fitting if outputs[name][0] == 1]
    if len(single) == 1:
        return single[0]
    if len(fitting) == 1:
        raise UnsupportedModelError(
            f"the model returns a batch of {outputs[fitting[0]][0]}; export it for one image or "
            "with a dynamic batch"
        )
    listed = ", ".join(f"{_short(name)} {tuple(shape)}" for name, shape in outputs.items())
    raise UnsupportedModelError(
        f"the model's outputs ({_short(listed, 300)}) are not a detection head; {_UNDERSTOOD}"
    )


def _refuse_other_tasks(metadata: Mapping[str, str]) -> None:
    task = metadata.get("task", "detect")
    if task != "detect":
        raise UnsupportedModelError(
            f"the model's task is '{_short(task)}', not 'detect'; export the detection model"
        )
    # Such an export holds its own suppression and returns (1, 300, 6), which reads like a YOLOv5
    # head of one class.
    if metadata.get("end2end", "").strip().lower() == "true":
        raise UnsupportedModelError(
            "the model is an end-to-end export that returns final boxes; export it with "
            f"end2end=False and nms=False; {_UNDERSTOOD}"
        )


def _input_scale(metadata: Mapping[str, str], default: float) -> float:
    text = metadata.get("vkconv.input_scale")
    if text is None:
        return default
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or scale <= 0.0:
        raise InvalidModelError(
            f"vkconv.input_scale in the model's metadata must be a positive number, "
            f"not '{_short(text)}'"
        )
    return scale


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
