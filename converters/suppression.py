"""Non-maximum suppression as a torch operator, which both exporters write as ONNX has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxscript
import torch

__all__ = ["TRANSLATIONS", "best_boxes", "non_max_suppression"]

onnx_op = onnxscript.opset18


@torch.library.custom_op("vkconv::non_max_suppression", mutates_args=())
def non_max_suppression(
    boxes: torch.Tensor, scores: torch.Tensor, most: int, overlap: float, least: float
) -> torch.Tensor:
    """Rows of (batch, class, box) that are kept, the best of each class first.

    boxes: (batch, n, 4) as y1, x1, y2, x2 or x1, y1, x2, y2. scores: (batch, classes, n). Of a
    class at most ``most`` are kept, which score more than ``least`` and cover none kept before by
    more than ``overlap`` (intersection over union).
    """
    kept = []
    for batch in range(scores.shape[0]):
        overlaps = _overlaps(boxes[batch])
        for label in range(scores.shape[1]):
            row = scores[batch, label]
            chosen: list[int] = []
            for box in torch.argsort(row, descending=True, stable=True).tolist():
                if len(chosen) == most or row[box] <= least:
                    break
                if not chosen or overlaps[box, chosen].max() <= overlap:
                    chosen.append(box)
            kept += [[batch, label, box] for box in chosen]
    return torch.tensor(kept, dtype=torch.int64).reshape(-1, 3)


def best_boxes(
    rows: torch.Tensor, candidates: int, most: int, *, overlap: float, least: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of one picture that remain, the best first, filled up to ``most`` with row 0.

    rows:        (1, n, 4 + classes): cx, cy, w, h, then class scores, of which the best counts.
    candidates:  so many of the best rows are looked at.

    Returns (1, most) int64 indices, and as many booleans: false where nothing remained. Boxes of
    different classes are kept apart by moving each class to a place of its own, as is common.
    """
    scores, labels = rows[..., 4:].max(2)
    count = min(candidates, rows.shape[1])
    scores, order = torch.topk(scores, count, 1)
    near = torch.gather(rows[..., :4], 1, order[..., None].expand(-1, -1, 4))
    center, half = near[..., :2], 0.5 * near[..., 2:]
    apart = torch.gather(labels, 1, order)[..., None].to(rows) * (2 * near.abs().max() + 1)
    corners = torch.cat([center - half + apart, center + half + apart], -1)
    kept = non_max_suppression(corners, scores[:, None], most, overlap, least)[:, 2]
    filled = torch.cat([kept, torch.full((most,), -1, dtype=torch.int64)])[:most]
    is_real = filled >= 0
    return order[:, filled.clamp(min=0)], is_real[None]


def _overlaps(boxes: torch.Tensor) -> torch.Tensor:
    """(n, n) intersections over unions."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / (areas[:, None] + areas[None] - shared)


@non_max_suppression.register_fake
def _(
    boxes: torch.Tensor, scores: torch.Tensor, most: int, overlap: float, least: float
) -> torch.Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((kept, 3), dtype=torch.int64)


def _translated(boxes: Any, scores: Any, most: int, overlap: float, least: float) -> Any:
    """For the dynamo exporter."""
    return onnx_op.NonMaxSuppression(
        boxes,
        scores,
        onnx_op.Constant(value_ints=[most]),
        onnx_op.Constant(value_floats=[overlap]),
        onnx_op.Constant(value_floats=[least]),
    )


@torch.onnx.symbolic_helper.parse_args("v", "v", "i", "f", "f")
def _symbolic(g: Any, boxes: Any, scores: Any, most: int, overlap: float, least: float) -> Any:
    """For the legacy exporter."""
    limits = [torch.tensor([most]), torch.tensor([overlap]), torch.tensor([least])]
    constants = [g.op("Constant", value_t=value) for value in limits]
    return g.op("NonMaxSuppression", boxes, scores, *constants)


torch.onnx.register_custom_op_symbolic("vkconv::non_max_suppression", _symbolic, 11)
#: for ``custom_translation_table`` of torch.onnx.export
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.vkconv.non_max_suppression.default: _translated
}
