"""Non-maximum suppression: of several boxes on one object, keep the most confident.

Greedy, per class, as in Felzenszwalb et al., "Object Detection with Discriminatively Trained
Part-Based Models" (2010), section 4.5: take the best box left, drop every box of its class that
overlaps it by more than the threshold, repeat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vkconv.errors import InvalidInputError

__all__ = ["non_maximum_suppression", "overlap"]

# At a confidence threshold of 0 every anchor is a candidate. Past this many, the weakest cannot
# matter to a picture of a few hundred boxes, but would make each round slower.
_MAX_CANDIDATES = 30_000


def overlap(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of one box (4,) with each of ``boxes`` (M, 4); corners, any unit.

    Boxes without area overlap nothing: their value is 0, never NaN.
    """
    one = box.astype(np.float64)
    many = boxes.astype(np.float64)
    width = np.minimum(one[2], many[:, 2]) - np.maximum(one[0], many[:, 0])
    height = np.minimum(one[3], many[:, 3]) - np.maximum(one[1], many[:, 1])
    intersection = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    area = max(one[2] - one[0], 0.0) * max(one[3] - one[1], 0.0)
    extents = np.maximum(many[:, 2:] - many[:, :2], 0.0)
    union = area + extents[:, 0] * extents[:, 1] - intersection
    ratio: NDArray[np.float64] = np.zeros(len(many), dtype=np.float64)
    np.divide(intersection, union, out=ratio, where=union > 0.0)
    return ratio


def non_maximum_suppression(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    class_ids: NDArray[np.integer],
    *,
    iou_threshold: float = 0.45,
    max_detections: int = 300,
) -> NDArray[np.int64]:
    """Indices of the boxes to keep, most confident first; equal scores keep their input order.

    boxes:      (M, 4) corners ``x1, y1, x2, y2``.
    scores:     (M,).
    class_ids:  (M,); boxes of different classes never suppress each other.

    A box goes when its overlap with a kept box of its class is *greater* than ``iou_threshold``
    (0..1). Rows with a value that is not finite are dropped. Raises InvalidInputError when the
    arrays disagree in length or an option is out of range.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InvalidInputError(f"NMS: boxes must be (M, 4), not {boxes.shape}")
    count = len(boxes)
    if scores.shape != (count,) or class_ids.shape != (count,):
        raise InvalidInputError(
            f"NMS: {count} boxes need scores and class_ids of shape ({count},), "
            f"not {scores.shape} and {class_ids.shape}"
        )
    if not 0.0 <= iou_threshold <= 1.0:
        raise InvalidInputError(f"NMS: iou_threshold must lie in 0..1, not {iou_threshold}")
    if max_detections < 0:
        raise InvalidInputError(f"NMS: max_detections must be 0 or more, not {max_detections}")

    usable = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    order = usable[np.argsort(-scores[usable].astype(np.float64), kind="stable")]
    left = order[:_MAX_CANDIDATES]
    kept: list[int] = []
    # One round per *kept* box, each over whole arrays, so the Python loop is bounded by
    # max_detections and not by the number of candidates.
    while len(left) and len(kept) < max_detections:
        best, rest = left[0], left[1:]
        kept.append(int(best))
        suppressed = (class_ids[rest] == class_ids[best]) & (
            overlap(boxes[best], boxes[rest]) > iou_threshold
        )
        left = rest[~suppressed]
    return np.array(kept, dtype=np.int64)
