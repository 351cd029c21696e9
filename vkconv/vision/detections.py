"""Detections: what a head yields, NMS thins out, and draw shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Detections"]


@dataclass(frozen=True, slots=True)
class Detections:
    """``M`` boxes with their confidence and class, as three parallel arrays.

    boxes:      (M, 4) float32, corners ``x1, y1, x2, y2`` in pixels. Which pixels (model input or
                source image) is said by the function that returns them. A pixel spans [i, i + 1).
    scores:     (M,) float32, confidence in 0..1.
    class_ids:  (M,) int64, index into the class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
        """The rows named by ``keep``: indices (in that order) or a boolean mask."""
        return Detections(self.boxes[keep], self.scores[keep], self.class_ids[keep])

    @classmethod
    def empty(cls) -> Detections:
        """No detections, with the right shapes and types."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
