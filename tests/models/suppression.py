"""Non-maximum suppression as one torch operator, which both exporters write as ONNX has it."""

from __future__ import annotations

from typing import Any

import onnxscript
import torch

onnx_op = onnxscript.opset18


@torch.library.custom_op("models::non_max_suppression", mutates_args=())
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


torch.onnx.register_custom_op_symbolic("models::non_max_suppression", _symbolic, 11)
#: for ``custom_translation_table`` of torch.onnx.export
TRANSLATIONS = {torch.ops.models.non_max_suppression.default: _translated}
