"""What the fusion of linear branches did: for the report, and to name what it made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vkconv.ir import Fusion, Names, Node, constant
from vkconv.passes.linear_layers import Layer, fill
from vkconv.passes.linear_regions import RULES, Region, bare


@dataclass
class Record:
    """One node that fusion made.

    ``names``: those its weights and bias will have. ``addition``: the node that adds the bias where
    the layer has no place for one.
    """

    names: tuple[str, str]
    dtype: np.dtype[Any]
    gone: set[Node] = field(default_factory=set)
    text: str = ""
    rules: frozenset[str] = frozenset()
    layer: Layer | None = None
    addition: Node | None = None


class Records:
    """Those of one graph, whose nodes were of ``types``, in ``order``."""

    def __init__(self, types: Mapping[Node, str], order: Mapping[Node, float]) -> None:
        self._types, self._order = types, order
        self._found: dict[Node, Record] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def dtype(self, node: Node) -> np.dtype[Any]:
        """The type of a node's weights as the model has them."""
        return self._begun(node).dtype

    def _begun(self, node: Node) -> Record:
        if node not in self._found:
            weights = node.inputs[1]
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            assert weights is not None and weights.array is not None
            names = (
                f"{weights.name}/fused",
                f"{node.name}/bias" if bias is None else f"{bias.name}/fused",
            )
            return Record(names, weights.array.dtype)
        return self._found[node]

    def note(self, node: Node, region: Region, layer: Layer, addition: Node | None) -> None:
        """``node`` is all of ``region`` now, with ``addition`` where that adds its bias."""
        record = self._found[node] = self._begun(node)
        for other in region.nodes:
            record.gone.add(other)
            if other is not node and other in self._found:
                record.gone |= self._found.pop(other).gone
        record.gone.discard(node)
        if addition is not None:
            record.gone.discard(addition)
        record.text, record.rules = region.text, region.rules | record.rules
        record.layer, record.addition = layer, addition

    def add_gone(self, node: Node, nodes: Iterable[Node]) -> None:
        self._found[node].gone.update(nodes)

    def sorted(self, nodes: Iterable[Node]) -> list[Node]:
        return sorted(nodes, key=self._order.__getitem__)

    def kind(self, nodes: Iterable[Node], rules: Collection[str]) -> str:
        """What was fused, in a few words."""
        if "sum" in rules:
            return "parallel branches"
        if "concat" in rules:
            return "concatenated branches"
        return " + ".join(self._types[n] for n in self.sorted(nodes))

    def finish(self, names: Names) -> list[Fusion]:
        """Compute all weights, one layer after the other; what was done, in the graph's order."""
        found = []
        for node in self.sorted(self._found):
            record = self._found.pop(node)
            assert record.layer is not None
            if record.addition is not None:
                bias = record.layer.bias()
                if bias is None:
                    bias = np.zeros(record.layer.map.outputs, record.dtype)
                made = constant(names.free(record.names[1]), bias)
                record.addition.inputs[1] = made
                node.inputs[1:] = [constant(names.free(record.names[0]), record.layer.weights())]
            else:
                fill(node, record.layer, names.free, record.names)
            gone = self.sorted(record.gone)
            node.fused += [name for n in gone for name in (n.name, *n.fused)]
            everything = [*gone, node, *([record.addition] if record.addition else [])]
            found.append(
                Fusion(
                    self.kind(everything, record.rules),
                    tuple(n.name for n in gone),
                    node.name,
                    _algebra(record.text, record.rules),
                )
            )
        return found


def _algebra(text: str, rules: Collection[str]) -> str:
    steps = [RULES[r] for r in RULES if r in rules]
    return "; ".join([f"y = {bare(text).replace('{}', 'x')}", *steps])
