"""What a head's numbers mean: its output tensors become boxes in input pixels.

One function for each family of ``head_kinds``. Outputs are untrusted: whatever is not finite, has
no area or names no class is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vkconv.errors import InvalidInputError
from vkconv.vision.detections import Detections
from vkconv.vision.head_kinds import KINDS
from vkconv.vision.heads import STRIDES, HeadSpec

__all__ = ["decode", "is_final"]

Floats = NDArray[np.float32]

# Class numbers are data here: past this, they are noise.
_MOST_CLASSES = 100_000


def is_final(head: HeadSpec) -> bool:
    """Whether what ``decode`` returns is not to be suppressed: the model has chosen."""
    return KINDS[head.kind].family != "dense"


def decode(
    outputs: Sequence[NDArray[Any]],
    head: HeadSpec,
    *,
    input_size: tuple[int, int],
    confidence: float = 0.25,
) -> Detections:
    """Output tensors -> candidate boxes in *input* pixels, each with its best class.

    outputs:     the tensors of ``head.outputs``, in that order; any float type, labels also
                 integers.
    input_size:  (width, height) of the model's input, in pixels.
    confidence:  0..1; boxes below it are left out. Of dense heads it is objectness (for FCOS,
                 centerness) * class score, for YOLOv8 and RTMDet the class score alone, and for a
                 YOLOv7 of one class the objectness alone, because YOLOv7 does not train the class
                 score then; of others the score, of a DETR the probability of its best class.

    Boxes with a value that is not finite, or without area, are left out. Nothing is suppressed yet:
    see ``non_maximum_suppression``, and ``is_final``. Raises InvalidInputError when the tensors do
    not have the shapes that the head was chosen for.
    """
    if len(outputs) != len(head.outputs):
        raise InvalidInputError(
            f"the head '{head.kind}' is read from {len(head.outputs)} outputs "
            f"({', '.join(head.outputs)}), not {len(outputs)}"
        )
    layout = KINDS[head.kind]
    # Untrusted numbers: overflow and NaN are expected here, and filtered.
    with np.errstate(over="ignore", invalid="ignore"):
        if layout.family == "dense":
            boxes, scores, classes = _dense(outputs[0], head, input_size, confidence)
        elif layout.family == "final":
            boxes, scores, classes = _final(outputs[0], head)
        elif layout.family == "lists":
            boxes, scores, classes = _lists(outputs, head)
        else:
            boxes, scores, classes = _queries(outputs, head)
        if not layout.pixels:
            boxes = boxes * np.array(input_size * 2, np.float32)
        classes = np.nan_to_num(classes, nan=-1.0, posinf=-1.0, neginf=-1.0)
        most = len(head.class_names) or _MOST_CLASSES
        # NaN compares false.
        keep = (
            (scores >= confidence)
            & np.isfinite(scores)
            & np.isfinite(boxes).all(axis=1)
            & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            & (classes >= 0)
            & (classes < most)
        )
    return Detections(
        boxes[keep], np.minimum(scores[keep], np.float32(1.0)), classes[keep].astype(np.int64)
    )


# corners (M, 4) in the units of the head, scores, classes
Found = tuple[Floats, Floats, NDArray[Any]]


def _dense(
    output: NDArray[Any], head: HeadSpec, input_size: tuple[int, int], confidence: float
) -> Found:
    layout, count = KINDS[head.kind], len(head.class_names)
    first_class = layout.first_class
    rows = _table(output, head, first_class + count, transposed=layout.transposed)
    geometry = _decode_grid(rows, input_size) if layout.in_cells else rows[:, :4]
    scores = rows[:, first_class:]
    class_ids = np.argmax(scores, axis=1)
    best = np.take_along_axis(scores, class_ids[:, np.newaxis], axis=1)[:, 0]
    if layout.objectness:
        sole = layout.sole_class_is_untrained and count == 1
        best = rows[:, 4] if sole else rows[:, 4] * best
    # Few rows are left for the dearer checks.
    likely = np.flatnonzero(best >= confidence)
    likely = likely[np.isfinite(rows[likely]).all(axis=1)]
    return _corners(geometry[likely]), best[likely], class_ids[likely]


def _final(output: NDArray[Any], head: HeadSpec) -> Found:
    layout = KINDS[head.kind]
    assert layout.columns is not None
    rows = _table(output, head, len(layout.columns))
    value = {name: rows[:, i] for i, name in enumerate(layout.columns)}
    if "cx" in value:
        boxes = _corners(np.stack([value[name] for name in ("cx", "cy", "w", "h")], axis=1))
    else:
        boxes = np.stack([value[name] for name in ("x1", "y1", "x2", "y2")], axis=1)
    return boxes, value["score"], value["class"]


def _lists(outputs: Sequence[NDArray[Any]], head: HeadSpec) -> Found:
    if len(outputs) == 2:
        rows = _table(outputs[0], head, 5)
        boxes, scores = rows[:, :4], rows[:, 4]
    else:
        boxes, scores = _table(outputs[0], head, 4), outputs[1].reshape(-1)
    labels = outputs[-1].reshape(-1)
    if not len(boxes) == len(scores) == len(labels):
        raise InvalidInputError(
            f"the outputs {', '.join(head.outputs)} have {len(boxes)} boxes, {len(scores)} scores "
            f"and {len(labels)} labels, which go together"
        )
    return boxes, scores.astype(np.float32), labels


def _queries(outputs: Sequence[NDArray[Any]], head: HeadSpec) -> Found:
    layout, count = KINDS[head.kind], len(head.class_names)
    if len(outputs) == 1:
        rows = _table(outputs[0], head, 4 + count)
        geometry, scores = rows[:, :4], rows[:, 4:]
    else:
        geometry = _table(outputs[0], head, 4)
        logits = _table(outputs[1], head, count + layout.softmax, output=1)
        if len(logits) != len(geometry):
            raise InvalidInputError(f"{len(geometry)} boxes have {len(logits)} rows of logits")
        scores = (_softmax(logits) if layout.softmax else _sigmoid(logits))[:, :count]
    class_ids = np.argmax(scores, axis=1)
    best = np.take_along_axis(scores, class_ids[:, np.newaxis], axis=1)[:, 0]
    return _corners(geometry), best, class_ids


def _table(
    tensor: NDArray[Any], head: HeadSpec, values: int, *, transposed: bool = False, output: int = 0
) -> Floats:
    """One picture's output as float32 rows of ``values`` numbers; final boxes may lack the axis of
    pictures."""
    loose = tensor.ndim == 2 and KINDS[head.kind].family in ("final", "lists")
    rows = tensor if loose else tensor[0] if tensor.ndim == 3 and tensor.shape[0] == 1 else None
    if rows is not None and transposed:
        rows = rows.T
    if rows is None or rows.shape[1] != values:
        expected = f"(1, {values}, N)" if transposed else f"(1, N, {values})"
        raise InvalidInputError(
            f"output '{head.outputs[output]}' has shape {tensor.shape}; the head '{head.kind}' of "
            f"{len(head.class_names) or 'any'} classes has {expected}"
        )
    with np.errstate(over="ignore"):
        return rows.astype(np.float32, copy=False)


def _corners(centers: Floats) -> Floats:
    """cx, cy, w, h -> x1, y1, x2, y2."""
    half = centers[:, 2:] * np.float32(0.5)
    return np.concatenate((centers[:, :2] - half, centers[:, :2] + half), axis=1)


def _sigmoid(logits: Floats) -> Floats:
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-logits))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _decode_grid(rows: Floats, input_size: tuple[int, int]) -> Floats:
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
    centers = (rows[:, :2] + cell) * stride_column
    return np.concatenate((centers, np.exp(rows[:, 2:4]) * stride_column), axis=1)
