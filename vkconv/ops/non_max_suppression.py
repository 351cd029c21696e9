"""NonMaxSuppression: of boxes that overlap, the ones with the best scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.copying import Dim, strided_copy
from vkconv.ops.cumulative import cumulate
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Bound, Operator, UnknownShapeError
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.registry import operator
from vkconv.ops.rows import full_grid
from vkconv.ops.shapes import ceil_div

#: more dispatches than that are not worth recording
MOST_DISPATCHES = 512
#: workgroups along one axis that every device has: one for each class of each image
MOST_ROWS = 65535
#: bound on the elements of lists that int offsets reach
MOST_ELEMENTS = 1 << 29


@dataclass(frozen=True)
class _Limits:
    most: int
    iou: float
    score: float | None


@operator("NonMaxSuppression", since=(10, 11))
class NonMaxSuppression(Operator):
    """y = (image, class, box) of every selected box: classes in order, in each the best score
    first.

    A box is selected, best scores and lower indices first, when its score is above
    ``score_threshold`` (any score but NaN without one), and intersection / union with each box
    selected before is not above ``iou_threshold``; at most ``max_output_boxes_per_class`` of a
    class are. boxes (images, boxes, 4) hold two opposite corners, or with ``center_point_box``
    middle, width and height; scores are (images, classes, boxes).
    """

    center_point_box: int = 0
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"int64", "int32"})
    linear_inputs: ClassVar[frozenset[int]] = frozenset({2})

    def infer(
        self,
        boxes: Value,
        scores: Value,
        most: Value | None = None,
        iou: Value | None = None,
        score: Value | None = None,
    ) -> TensorType:
        fits = len(boxes.dims) == len(scores.dims) == 3 and boxes.dims[2] == 4
        if not fits or (boxes.dims[0], boxes.dims[1]) != (scores.dims[0], scores.dims[2]):
            raise InvalidModelError(
                f"boxes of shape {boxes.dims} do not fit scores of {scores.dims}"
            )
        for value in (most, iou, score):
            if value is not None and value.array is None:
                raise UnknownShapeError(f"the input '{value.name}' is computed by the model", value)
        limits = _limits(*(None if v is None else v.array for v in (most, iou, score)))
        if min(limits.most, scores.known_type.size) == 0:
            return TensorType("int64", (0, 3))
        raise UnknownShapeError("how many boxes are selected depends on them")

    def bound(self, boxes: Value, scores: Value, *limits: Value | None) -> Bound:
        most = _limits(*(None if v is None else v.array for v in limits)).most
        images, classes, count = scores.dims
        return Bound(TensorType("int64", (images * classes * min(most, count), 3)), 0)

    def reference(self, boxes: Array, scores: Array, *limits: Array | None) -> Array:
        asked = _limits(*limits)
        rows: list[tuple[int, int, int]] = []
        for image, (corners, classes) in enumerate(zip(self._corners(boxes), scores, strict=True)):
            for label, of_class in enumerate(classes):
                rows += [(image, label, int(i)) for i in _select(corners, of_class, asked)]
        return np.array(rows, np.int64).reshape(-1, 3)

    def _corners(self, boxes: Array) -> Array:
        """Lower corner, upper corner, in the dtype of the boxes, as the thresholds decide by its
        last digits."""
        first, second = boxes[..., :2], boxes[..., 2:]
        if self.center_point_box:
            half = second / second.dtype.type(2)
            return np.concatenate([first - half, first + half], -1)
        return np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        scores = inputs[1]
        assert scores is not None
        if len(outputs) == 1:
            return None
        images, classes, count = scores.dims
        rows = images * classes
        most = outputs[0].dims[0] // rows
        # as for the device with the fewest lanes
        dispatches = ceil_div(most, steps_per_dispatch(count, 8))
        elements = rows * (count + most + 256)
        if dispatches > MOST_DISPATCHES or rows > MOST_ROWS or elements > MOST_ELEMENTS:
            return f"{images} x {classes} x {count} boxes are too many for the kernel"
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        boxes, scores, *rest = inputs
        y = outputs[0].on_device
        assert boxes is not None and scores is not None
        if not y.span:
            return []
        limits = _limits(*(None if t is None else t.array for t in rest))
        images, classes, count = scores.shape
        rows, most = images * classes, min(limits.most, count)
        lanes = lanes_for(ctx.caps)
        list_room = ceil_div(count, lanes) * lanes
        row_size = 2 + lanes + most + list_room
        work = replace(ctx.scratch(rows * row_size, "lists"), dtype="int32")
        grid = full_grid(ctx.caps, 1, rows, lanes)
        steps = steps_per_dispatch(count, lanes)
        dispatches = [
            ctx.dispatch(
                "non_max_suppression",
                {
                    "boxes": ctx.operand(boxes, "linear"),
                    "scores": ctx.operand(scores, "linear"),
                    "work": work,
                },
                {
                    "rows": rows,
                    "classes": classes,
                    "count": count,
                    "most": most,
                    "steps": steps,
                    "list_room": list_room,
                    "iou_threshold": limits.iou,
                    "score_threshold": limits.score or 0.0,
                },
                {
                    **grid.spec,
                    "center_form": int(bool(self.center_point_box)),
                    "first_dispatch": int(turn == 0),
                    "has_threshold": int(limits.score is not None),
                },
                grid.count,
            )
            for turn in range(ceil_div(most, steps))
        ]
        counts = replace(ctx.scratch(rows, "selected of each class"), dtype="int32")
        ends = replace(ctx.scratch(rows, "running totals"), dtype="int32")
        dispatches += strided_copy(ctx, work, counts, [Dim(rows, row_size, 1)])
        dispatches += cumulate(ctx, counts, ends, (1, rows, 1))
        grid = spread(ctx.caps, most, rows)
        dispatches.append(
            ctx.dispatch(
                "collect_boxes",
                {"work": work, "ends": ends, "y": y, "found": outputs[1].on_device},
                {"rows": rows, "classes": classes, "row_size": row_size, "selected_at": 2 + lanes},
                grid.spec,
                grid.count,
            )
        )
        return dispatches


def lanes_for(caps: DeviceCaps) -> int:
    """Lanes that share the boxes of a class: on CPU drivers one vector's, since barriers cost."""
    return 8 if caps.kind == "cpu" else 64


def steps_per_dispatch(count: int, lanes: int) -> int:
    """Boxes that one dispatch may select of ``count``: its invocations' loops are limited in
    length."""
    turns = ceil_div(count, lanes)
    return max(1, (MOST_ITERATIONS - turns) // (turns + lanes + 2))


def _limits(
    most: Array | None = None, iou: Array | None = None, score: Array | None = None
) -> _Limits:
    """The inputs after the scores. Raises InvalidModelError on a threshold that is no share."""

    def number(array: Array | None) -> float | None:
        if array is None:
            return None
        if array.size != 1:
            raise InvalidModelError(f"a limit has shape {array.shape}, not one element")
        return float(array.reshape(-1)[0])

    threshold = number(iou) or 0.0
    if not 0 <= threshold <= 1:
        raise InvalidModelError(f"the IoU threshold is {threshold}, outside [0, 1]")
    return _Limits(max(int(number(most) or 0), 0), threshold, number(score))


def _select(corners: Array, scores: Array, limits: _Limits) -> list[int]:
    """Indices of the boxes selected for one class. Comparisons are made in float32, as on the
    device."""
    with np.errstate(all="ignore"):
        keep = ~np.isnan(scores) if limits.score is None else scores > np.float32(limits.score)
    left = np.nonzero(keep)[0]
    left = left[np.argsort(-scores[left], kind="stable")]
    selected: list[int] = []
    while len(left) and len(selected) < limits.most:
        best, left = int(left[0]), left[1:]
        selected.append(best)
        left = left[~_overlaps(corners[best], corners[left], np.float32(limits.iou))]
    return selected


def _overlaps(box: Array, others: Array, threshold: np.float32) -> Array:
    """Whether intersection / union is above the threshold; an empty box overlaps nothing."""
    with np.errstate(all="ignore"):
        side = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        shared = side[:, 0] * side[:, 1]
        area, areas = np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], 1)
        union = area + areas - shared
        inside = (side > 0).all(1) & (shared > 0) & (area > 0) & (areas > 0) & (union > 0)
        return np.asarray(inside & (shared / union > threshold))
