"""The ends of detectors as exporters write them, by hand and small: maps in, rows of boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from tests.small_models import floats, model, node
from vkconv.ir import Array

Levels = Sequence[tuple[int, int]]


def with_anchors(
    levels: Levels,
    *,
    batch: Any = 1,
    channels: int = 9,
    anchors: int = 3,
    split: bool = True,
    power: bool = False,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """YOLOv5 and v7: (2 s + grid - 1/2) stride, (2 s)^2 anchor, and scores."""
    nodes: list[Any] = []
    constants: dict[str, Array] = {
        "two": np.float32(2),
        "half": np.float32(0.5),
        "sizes": np.array([2, 2, channels - 4]),
        "axis": np.array([-1]),
        **{f"at{i}": np.array([i]) for i in (0, 2, 4, 1000)},
    }
    inputs: dict[str, Any] = {}
    for i, (h, w) in enumerate(levels):
        inputs[f"x{i}"] = [batch, anchors * channels, h, w]
        grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
        constants |= {
            f"map{i}": np.array([0, anchors, channels, h, w]),
            f"rows{i}": np.array([0, -1, channels]),
            f"grid{i}": grid[None, None],
            f"stride{i}": np.float32(8 << i),
            f"anchor{i}": np.abs(floats(1, anchors, 1, 1, 2, seed=i)) * 30,
        }
        nodes += [
            node("Reshape", f"x{i} map{i}", f"r{i}"),
            node("Transpose", f"r{i}", f"t{i}", perm=[0, 1, 3, 4, 2]),
            node("Sigmoid", f"t{i}", f"s{i}"),
        ]
        parts = f"xy{i} wh{i} rest{i}"
        if split:
            nodes.append(node("Split", f"s{i} sizes", parts, axis=-1))
        else:
            nodes += [
                node("Slice", f"s{i} {a} {b} axis", part)
                for part, (a, b) in zip(
                    parts.split(), [("at0", "at2"), ("at2", "at4"), ("at4", "at1000")], strict=True
                )
            ]
        square = node("Pow", f"w{i} two", f"p{i}") if power else node("Mul", f"w{i} w{i}", f"p{i}")
        nodes += [
            node("Mul", f"xy{i} two", f"a{i}"),
            node("Sub", f"a{i} half", f"b{i}"),
            node("Add", f"b{i} grid{i}", f"c{i}"),
            node("Mul", f"c{i} stride{i}", f"centre{i}"),
            node("Mul", f"wh{i} two", f"w{i}"),
            square,
            node("Mul", f"p{i} anchor{i}", f"size{i}"),
            node("Concat", f"centre{i} size{i} rest{i}", f"j{i}", axis=-1),
            node("Reshape", f"j{i} rows{i}", f"o{i}"),
        ]
    nodes.append(node("Concat", " ".join(f"o{i}" for i in range(len(levels))), "y", axis=1))
    return model(nodes, inputs, dict.fromkeys(outputs), constants)


def without_anchors(levels: Levels, *, batch: int = 1, classes: int = 6) -> onnx.ModelProto:
    """YOLOX: the levels are joined first, then (xy + grid) stride and exp(wh) stride."""
    cells = sum(h * w for h, w in levels)
    constants: dict[str, Array] = {
        "grids": floats(1, cells, 2, seed=1),
        "strides": np.abs(floats(1, cells, 1, seed=2)) * 8,
        "axis": np.array([2]),
        **{f"at{i}": np.array([i]) for i in (0, 2, 4, 1000)},
    }
    inputs: dict[str, Any] = {}
    nodes: list[Any] = []
    for i, (h, w) in enumerate(levels):
        inputs |= {
            f"box{i}": [batch, 4, h, w],
            f"object{i}": [batch, 1, h, w],
            f"class{i}": [batch, classes, h, w],
        }
        constants[f"flat{i}"] = np.array([0, 5 + classes, -1])
        nodes += [
            node("Sigmoid", f"object{i}", f"p{i}"),
            node("Sigmoid", f"class{i}", f"q{i}"),
            node("Concat", f"box{i} p{i} q{i}", f"j{i}", axis=1),
            node("Reshape", f"j{i} flat{i}", f"f{i}"),
        ]
    nodes += [
        node("Concat", " ".join(f"f{i}" for i in range(len(levels))), "all", axis=2),
        node("Transpose", "all", "rows", perm=[0, 2, 1]),
        node("Slice", "rows at0 at2 axis", "xy"),
        node("Slice", "rows at2 at4 axis", "wh"),
        node("Slice", "rows at4 at1000 axis", "rest"),
        node("Add", "xy grids", "moved"),
        node("Mul", "moved strides", "centre"),
        node("Exp", "wh", "e"),
        node("Mul", "e strides", "size"),
        node("Concat", "centre size rest", "y", axis=-1),
    ]
    return model(nodes, inputs, {"y": None}, constants)


def of_distances(cells: int, *, batch: int = 1, classes: int = 5) -> onnx.ModelProto:
    """YOLOv8: corners from distances, then centre and size of them, beside the scores."""
    constants = {
        "points": floats(1, 2, cells, seed=1),
        "strides": np.abs(floats(1, cells, seed=2)),
        "two": np.float32(2),
    }
    nodes = [
        node("Split", "d", "lt rb", axis=1),
        node("Sub", "points lt", "low"),
        node("Add", "points rb", "high"),
        node("Add", "low high", "sum"),
        node("Div", "sum two", "centre"),
        node("Sub", "high low", "size"),
        node("Concat", "centre size", "box", axis=1),
        node("Mul", "box strides", "scaled"),
        node("Sigmoid", "c", "p"),
        node("Concat", "scaled p", "j", axis=1),
        node("Transpose", "j", "y", perm=[0, 2, 1]),
    ]
    inputs = {"d": [batch, 4, cells], "c": [batch, classes, cells]}
    return model(nodes, inputs, {"y": None}, constants)
