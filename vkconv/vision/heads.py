"""Which head a detector has: from its metadata, else from the shapes of what it returns.

The kinds are described in ``head_kinds``; what their numbers mean is ``decoding``'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from vkconv.vision.head_kinds import HEAD_KINDS, KINDS, Fit
from vkconv.vision.head_metadata import channels, input_scale, one_of
from vkconv.vision.head_outputs import (
    UNDERSTOOD,
    box_output,
    final_lists,
    final_rows,
    list_outputs,
    query_outputs,
    short,
)
from vkconv.vision.labels import default_class_names, metadata_class_names

__all__ = ["SIZES_INPUT", "HeadSpec", "choose_head"]

STRIDES = (8, 16, 32)
_ORDERS = ("rgb", "bgr")

SIZES_INPUT = "orig_target_sizes"
"""A second input of RT-DETR's and its successors' exports, int64 (1, 2): width and height, in
pixels, that the boxes are scaled to. Fed with the input's size, they are in input pixels."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How to feed a detector and how to read what it returns.

    kind:           one of HEAD_KINDS.
    outputs:        names of the outputs that are read, in the order that ``decode`` takes them.
    class_names:    one for each class; empty where neither the model's metadata nor a shape tells
                    how many there are.
    input_scale:    multiplier from 0..255 to what the model takes, before mean and std.
    channel_order:  "rgb" or "bgr".
    fit:            how a picture is put into the input: "center" or "corner" (its aspect kept, with
                    gray around it or right and below), or "stretch".
    mean, std:      one number, or one for each channel in the model's order: what the model takes
                    is (pixel * input_scale - mean) / std.
    """

    kind: str
    outputs: tuple[str, ...]
    class_names: tuple[str, ...]
    input_scale: float = 1.0 / 255.0
    channel_order: str = "rgb"
    fit: Fit = "center"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def choose_head(
    outputs: Mapping[str, Sequence[int]],
    metadata: Mapping[str, str] | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    inputs: Collection[str] = (),
    kind: str | None = None,
) -> HeadSpec:
    """Tell a model's head from its metadata, else from its output shapes.

    outputs:     name -> concrete shape, in the model's order.
    metadata:    the model's metadata_props. Read are ``vkconv.head``, ``vkconv.classes``,
                 ``vkconv.input_scale``, ``vkconv.mean``, ``vkconv.std``, ``vkconv.channel_order``,
                 ``vkconv.fit`` and Ultralytics' ``task``, ``names``, ``head`` and ``end2end``.
    input_size:  (width, height) in pixels. With it heads of one and of three boxes a cell are told
                 apart, and from those of fewer boxes than cells, although their shapes look alike.
    inputs:      the names of the model's inputs; SIZES_INPUT among them tells of RT-DETR's kin,
                 which take pictures stretched.
    kind:        one of HEAD_KINDS, in place of what the model says.

    Raises InvalidInputError for a ``kind`` that is none, UnsupportedModelError, listing what is
    understood, for a head that is none of these, and InvalidModelError for metadata that is
    malformed or contradicts the shapes.
    """
    metadata = metadata or {}
    if kind is not None and kind not in HEAD_KINDS:
        raise InvalidInputError(f"'{short(kind)}' is no head; {UNDERSTOOD}")
    _refuse_other_tasks(metadata)
    kind = kind or metadata.get("vkconv.head", "").strip().lower()
    if kind and kind not in HEAD_KINDS:
        raise UnsupportedModelError(f"the model's vkconv.head is '{short(kind)}'; {UNDERSTOOD}")
    names = metadata_class_names(metadata)
    if not kind:
        kind = _told_kind(outputs, metadata, None if names is None else len(names), input_size)
    read = _outputs_of(kind, outputs)
    count = _class_count(kind, {name: outputs[name] for name in read})
    if names is not None and count is not None and len(names) != count:
        raise InvalidModelError(
            f"the metadata names {len(names)} classes, but {list_outputs(outputs, read)} has "
            f"{count} as a {kind} head; {UNDERSTOOD}"
        )
    layout = KINDS[kind]
    fit = "stretch" if SIZES_INPUT in inputs else layout.fit
    return HeadSpec(
        kind=kind,
        outputs=read,
        class_names=names or (() if count is None else default_class_names(count)),
        input_scale=input_scale(metadata, layout.input_scale),
        channel_order=one_of(metadata, "vkconv.channel_order", _ORDERS, layout.channel_order),
        fit=cast(Fit, one_of(metadata, "vkconv.fit", get_args(Fit), fit)),
        mean=channels(metadata, "vkconv.mean", layout.mean),
        std=channels(metadata, "vkconv.std", layout.std),
    )


def _told_kind(
    outputs: Mapping[str, Sequence[int]],
    metadata: Mapping[str, str],
    classes: int | None,
    input_size: tuple[int, int] | None,
) -> str:
    """The kind of head, by the shapes and by what Ultralytics writes."""
    if final_lists(outputs):
        return "boxes"
    if [len(s) == 2 and s[1] == 7 for s in outputs.values()] == [True]:
        return "yolov7-end2end"
    if query_outputs(outputs):
        raise UnsupportedModelError(
            f"the outputs {list_outputs(outputs)} look like a DETR's, which do not say what the "
            "class scores are; say it with --head or the metadata vkconv.head: rtdetr where each "
            "class stands for itself (sigmoid), detr where the last one is 'none' (softmax)"
        )
    _, rows, columns = outputs[box_output(outputs)]
    if columns == 6 and metadata.get("head") == "RTDETRDecoder":
        return "rtdetr-end2end"
    if metadata.get("end2end", "").strip().lower() == "true":
        return "end2end"
    return _kind_from_shape(rows, columns, classes, input_size)


def _kind_from_shape(
    rows: int, columns: int, classes: int | None, input_size: tuple[int, int] | None
) -> str:
    cells, few = -1, False
    if input_size is not None:
        cells = sum(_cells(input_size, STRIDES))
        few = rows < cells and not _fills_a_grid(rows, input_size)
    if columns == 6 and (few or classes not in (None, 1, 2)):
        return "end2end"
    if few and classes is not None and columns == 4 + classes:
        return "rtdetr"
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
        + UNDERSTOOD
    )


def _cells(input_size: tuple[int, int], strides: Sequence[int]) -> list[int]:
    width, height = input_size
    return [(width // stride) * (height // stride) for stride in strides]


def _fills_a_grid(boxes: int, input_size: tuple[int, int]) -> bool:
    """Whether a dense head may have this number of boxes: up to 9 in each cell of neighbouring
    levels, the first of stride 8 or finer, or of stride 16 where a cell has several."""
    levels = _cells(input_size, (4, 8, 16, 32, 64, 128))
    return any(
        boxes == anchors * sum(levels[first:end])
        for first in range(3)
        for end in range(first + 1, len(levels) + 1)
        for anchors in range(3 if first == 2 else 1, 10)
    )


def _outputs_of(kind: str, outputs: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """The outputs that a head of this kind is read from; UnsupportedModelError when they are not
    there."""
    layout = KINDS[kind]
    read: tuple[str, ...] = ()
    if layout.family == "lists":
        read = final_lists(outputs)
    elif layout.columns is not None:
        read = final_rows(outputs, len(layout.columns))
    elif layout.family == "queries":
        read = query_outputs(outputs)
    if not read and (layout.family == "dense" or kind == "rtdetr"):
        read = (box_output(outputs),)
    if not read:
        raise UnsupportedModelError(
            f"the outputs {list_outputs(outputs)} are not those of the head '{kind}'; {UNDERSTOOD}"
        )
    return read


def _class_count(kind: str, read: Mapping[str, Sequence[int]]) -> int | None:
    """How many classes the shapes tell of; None where they do not."""
    layout = KINDS[kind]
    if layout.family in ("lists", "final"):
        return None
    _, rows, columns = list(read.values())[-1]
    if len(read) == 2:
        count = columns - layout.softmax
    elif layout.family == "queries":
        count = columns - 4
    else:
        count = (rows if layout.transposed else columns) - layout.first_class
    if count < 1:
        raise UnsupportedModelError(
            f"{list_outputs(read)} leaves no class scores for a {kind} head; {UNDERSTOOD}"
        )
    return count


def _refuse_other_tasks(metadata: Mapping[str, str]) -> None:
    task = metadata.get("task", "detect")
    if task != "detect":
        raise UnsupportedModelError(
            f"the model's task is '{short(task)}', not 'detect'; export the detection model"
        )
