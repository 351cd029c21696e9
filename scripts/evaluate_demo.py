#!/usr/bin/env python3
"""Measure the demo detector: mAP50 on 500 generated pictures that training never saw.

    python scripts/evaluate_demo.py
    python scripts/evaluate_demo.py --engine onnxruntime --pictures 100

With ``--report`` the table in ``docs/demo_detector.md`` is replaced by the new one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from vkconv.converters.demo_scenes import CLASS_NAMES, EVALUATION_SEED, generate_scene
from vkconv.vision import Detections, HeadSpec, choose_head, detect, prepare

MODEL = Path("vkconv/data/demo.onnx")
REPORT = Path("docs/demo_detector.md")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SIDE = 320
CONFIDENCE, OVERLAP = 0.001, 0.6

Truth = tuple[np.ndarray, np.ndarray]


def draw_picture(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The evaluation picture ``index`` with its boxes and labels."""
    return generate_scene(EVALUATION_SEED + index, SIDE)


def open_session(engine: str, path: Path) -> Any:
    """A session of vkconv or of ONNX Runtime; both are used through ``run(None, inputs)``."""
    if engine == "vkconv":
        import vkconv

        return vkconv.InferenceSession(path)
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def read_head(path: Path) -> HeadSpec:
    """What the model's own metadata and output shape say about its boxes."""
    model = onnx.load(path)
    outputs = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in model.graph.output
    }
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return choose_head(outputs, metadata, input_size=(SIDE, SIDE))


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union ``(n, m)`` of boxes ``(n, 4)`` and ``(m, 4)``, x1 y1 x2 y2."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def average_precision(
    found: list[Detections], truths: list[Truth], label: int, threshold: float = 0.5
) -> tuple[float, int]:
    """Area under the precision-recall curve of one class, and how many objects it has.

    Every detection, most confident first, takes the object it overlaps most among those not taken
    yet in its picture, if by at least ``threshold``. Precision is made non-increasing and
    integrated over all recall values (PASCAL VOC 2010 and later).
    """
    total = sum(int((labels == label).sum()) for _, labels in truths)
    scores, hits = [], []
    for detections, (boxes, labels) in zip(found, truths, strict=True):
        mine = boxes[labels == label]
        chosen = np.flatnonzero(detections.class_ids == label)
        chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
        iou = overlaps(detections.boxes[chosen], mine)
        free = np.ones(len(mine), bool)
        for row in iou:
            row = np.where(free, row, 0.0)
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and row[best] >= threshold
            if hit:
                free[best] = False
            hits.append(hit)
        scores.extend(detections.scores[chosen])
    if not total or not scores:
        return 0.0, total
    right = np.cumsum(np.asarray(hits)[np.argsort(-np.asarray(scores), kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], right / total])
    return float((np.diff(recall) * precision).sum()), total


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="default: %(default)s")
    parser.add_argument("--engine", choices=("vkconv", "onnxruntime"), default="vkconv")
    parser.add_argument("--pictures", type=int, default=500, help="default: 500")
    parser.add_argument("--report", action="store_true", help=f"update {REPORT}")
    arguments = parser.parse_args()

    head = read_head(arguments.model)
    session = open_session(arguments.engine, arguments.model)
    found: list[Detections] = []
    truths: list[Truth] = []
    seconds = 0.0
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for picture, boxes, labels in pool.imap(draw_picture, range(arguments.pictures), 8):
            tensor, transform = prepare(Image.fromarray(picture), head, input_size=(SIDE, SIDE))
            start = time.perf_counter()
            (output,) = session.run(None, {"images": tensor})
            seconds += time.perf_counter() - start
            found.append(detect([output], head, transform, confidence=CONFIDENCE, iou=OVERLAP))
            truths.append((boxes, labels))

    lines = ["| class | objects | AP50 | AP75 |", "| --- | ---: | ---: | ---: |"]
    table = []
    for label, name in enumerate(CLASS_NAMES):
        ap50, objects = average_precision(found, truths, label)
        ap75, _ = average_precision(found, truths, label, 0.75)
        table.append((objects, ap50, ap75))
        lines.append(f"| {name} | {objects} | {ap50:.3f} | {ap75:.3f} |")
    objects, ap50, ap75 = np.array(table).T
    lines.append(f"| **mean** | {int(objects.sum())} | **{ap50.mean():.3f}** | {ap75.mean():.3f} |")
    print("\n".join(lines))
    print(f"{arguments.engine}: {1000 * seconds / len(found):.1f} ms a picture")
    if arguments.report:
        before, rest = REPORT.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        lines += ["", f"Measured with {arguments.engine}."]
        measured = f"{BEGIN}\n" + "\n".join(lines) + f"\n{END}"
        REPORT.write_text(before + measured + after, encoding="utf-8")
    if ap50.mean() < 0.9:
        sys.exit("mAP50 is below the 0.90 the demo detector promises")


if __name__ == "__main__":
    main()
