"""What a fusion did to a model, as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vkconv.fusion.types import Shapes
from vkconv.ir import Fusion, Graph, Unfused

__all__ = ["FusionReport", "Size", "all_fusions"]


@dataclass(frozen=True)
class Size:
    """How large a model is. ``nodes``: how many of each type, those inside If, Loop and Scan
    included; ``parameters``: floats in initializers and Constant nodes; ``flops``: of one run."""

    nodes: Mapping[str, int]
    parameters: int
    flops: int

    @property
    def node_count(self) -> int:
        return sum(self.nodes.values())


@dataclass(frozen=True)
class FusionReport:
    """Sizes before and after, what was fused, and what was left alone.

    shapes: of the inputs, for which ``flops`` are counted.
    removed: names of nodes that went because only fused ones read them. notes: what else was done
    to the model, in words.
    """

    before: Size
    after: Size
    shapes: Shapes
    fusions: tuple[Fusion, ...] = ()
    unfused: tuple[Unfused, ...] = ()
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The report in what JSON has."""
        return {
            "shapes": {name: list(sizes) for name, sizes in self.shapes.items()},
            "before": _size(self.before),
            "after": _size(self.after),
            "fusions": [
                {
                    "kind": fusion.kind,
                    "nodes": list(fusion.nodes),
                    "into": fusion.into,
                    "algebra": fusion.algebra,
                }
                for fusion in self.fusions
            ],
            "left_alone": [
                {"kind": entry.kind, "nodes": list(entry.nodes), "reason": entry.reason}
                for entry in self.unfused
            ],
            "removed": list(self.removed),
            "notes": list(self.notes),
        }


def all_fusions(graphs: Iterable[Graph]) -> list[Fusion]:
    """What passes recorded, and nodes that say by themselves what went into them."""
    found: list[Fusion] = []
    for graph in graphs:
        found += graph.fusions
        told = {name for fusion in graph.fusions for name in fusion.nodes}
        for node in graph.nodes:
            untold = tuple(name for name in node.fused if name not in told)
            if untold:
                found.append(Fusion(f"into {node.op_type}", untold, node.name, ""))
    return found


def _size(size: Size) -> dict[str, Any]:
    return {
        "nodes": dict(sorted(Counter(size.nodes).items())),
        "parameters": size.parameters,
        "gflops": round(size.flops / 1e9, 6),
    }
