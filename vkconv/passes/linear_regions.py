"""Regions of a graph that are one linear map between two values, the source and the result.

``Regions.of(value)`` finds, for each value that ``value`` depends on by linear layers alone, the
map from there, and the nodes it takes. Branches may part at the source and meet again in a sum or a
concatenation, to any depth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from vkconv.ir import Graph, Node, Unfused, Value
from vkconv.passes.linear_borders import MOVING, read_border
from vkconv.passes.linear_map import (
    InexactError,
    LinearMap,
    add,
    compose,
    concatenate,
    identity,
)
from vkconv.passes.linear_nodes import WEIGHTED, read
from vkconv.passes.linear_products import Reading
from vkconv.passes.linear_spaces import find_spaces

SUMS = ("Add", "Sub", "Sum")
#: how far back a result is followed: sources for each value, nodes for each region
_SOURCES, _NODES = 12, 400
_LONGEST = 1000

#: rules of the algebra, as the report has them
RULES = {
    "scale": "W' = s W, b' = s b + t",
    "before": "W' = W s, b' = b + sum W t",
    "chain": "W' = V * W, b' = c + sum V b",
    "sum": "W' = sum of W on the taps of all, b' = sum of b",
    "concat": "W' = [W1; W2], b' = [b1; b2]",
    "BN": "BN: s = gamma / sqrt(var + eps), t = beta - s mean",
}


@dataclass(eq=False)
class Region:
    """``map`` from ``source``. ``nodes``: those it takes, with the multiplications that each does
    for one position of the source. ``text``: the result as a formula of the source, which
    is {} in it."""

    source: Value
    map: LinearMap
    nodes: dict[Node, float] = field(default_factory=dict)
    text: str = "{}"
    rules: frozenset[str] = frozenset()

    @property
    def work(self) -> float:
        return sum(self.nodes.values())

    @property
    def is_weighted(self) -> bool:
        return any(n.op_type in WEIGHTED for n in self.nodes)


class Regions:
    """The search over one graph. ``made`` holds nodes that fusion made, with their exact maps."""

    def __init__(self, graph: Graph, reserved: Collection[str]) -> None:
        self._spaces = find_spaces(graph)
        self._reserved = frozenset(reserved)
        #: how often each value is read, the graph's outputs included
        self._readers = Counter(v for n in graph.nodes for v in n.present_inputs)
        self._readers.update(graph.outputs)
        self._found: dict[Value, dict[Value, Region]] = {}
        self.made: dict[Node, Reading] = {}
        #: what was not combined because it would not be exact, and the nodes concerned
        self.inexact: list[Unfused] = []

    def of(self, value: Value) -> dict[Value, Region]:
        """Regions that end in ``value``, by source, nearest first; ``value`` itself is one."""
        if value not in self._found:
            space = self._spaces.get(value)
            found: dict[Value, Region] = {}
            if space is not None and not value.is_constant:
                found[value] = Region(value, identity(space.channels, space.axes))
                for region in self._behind(value):
                    if len(region.nodes) <= _NODES and len(found) < _SOURCES:
                        found.setdefault(region.source, region)
            self._found[value] = found
        return self._found[value]

    def reading(self, node: Node) -> Reading | None:
        """The node as a map of one tensor. Raises InexactError."""
        return self.made.get(node) or read(node, self._spaces)

    def is_rows(self, value: Value) -> bool:
        return self._spaces[value].rows

    def adopt(self, value: Value, like: Value) -> None:
        """``value`` is new, and has the channels and axes of ``like``."""
        self._spaces[value] = self._spaces[like]

    def forget(self, value: Value) -> None:
        self._found.pop(value, None)

    def clear(self) -> None:
        """Let go of all maps."""
        self._found.clear()
        self.made.clear()

    def is_sum(self, node: Node) -> bool:
        """Whether a node adds or subtracts tensors, none of them constant."""
        if node.op_type not in SUMS or node.domain or node.name in self._reserved:
            return False
        if node in self.made:
            return False
        return len(node.inputs) > 1 and all(
            v is not None and not v.is_constant for v in node.inputs
        )

    def _behind(self, value: Value) -> list[Region]:
        """The regions of which ``value``'s node is the last."""
        node = value.producer
        if node is None or node.name in self._reserved or node.outputs[0] is not value:
            return []
        if self.is_sum(node):
            signs = [1, -1] if node.op_type == "Sub" else [1] * len(node.inputs)
            return self._joined(node, signs)
        if node.op_type == "Concat" and not node.domain and len(node.inputs) > 1:
            space = self._spaces[value]
            axis = int(node.attributes.get("axis", 1))
            if axis in (space.channel_axis, space.channel_axis - space.rank):
                return self._joined(node, None)
            return []
        if node.op_type in MOVING:
            return self._bordered(value)
        try:
            reading = self.reading(node)
        except InexactError as error:
            self._note_inexact(node, node.inputs[0], str(error))
            return []
        return [] if reading is None else self._after(node, reading)

    def _after(self, node: Node, reading: Reading) -> list[Region]:
        found = []
        for region in self.of(reading.x).values():
            if region.map.outputs != reading.map.inputs:
                continue
            try:
                made = compose(reading.map, region.map)
            except InexactError as error:
                self._note_unless_costly(node, reading, region, str(error))
                continue
            work = reading.map.work * region.map.window.density
            rules = region.rules | _rules_of(node, reading.map, region)
            inner = bare(region.text) if "({})" in reading.text else region.text
            text = reading.text.replace("{}", inner)
            nodes = region.nodes | {node: work}
            found.append(Region(region.source, made, nodes, _shortened(text), rules))
        return found

    def _joined(self, node: Node, signs: Sequence[int] | None) -> list[Region]:
        """A sum, or without ``signs`` a concatenation, of maps of one source."""
        parts = [self.of(v) for v in node.present_inputs]
        if len(parts) != len(node.inputs) or not all(parts):
            return []
        found = []
        for source in parts[0]:
            regions = [p[source] for p in parts if source in p]
            if len(regions) == len(parts) and any(r.nodes for r in regions):
                made = self.join(node.present_inputs, regions, signs)
                if made is not None:
                    made.nodes[node] = made.map.outputs * made.map.window.density
                    found.append(made)
        return found

    def join(
        self, values: Sequence[Value], regions: Sequence[Region], signs: Sequence[int] | None
    ) -> Region | None:
        """The region of a sum or concatenation, without the node that does it."""
        maps = [r.map for r in regions]
        agree = _sizes_agree(values)
        if len({len(m.window.axes) for m in maps}) > 1:
            return None
        if signs is not None and len({m.outputs for m in maps}) > 1:
            return None
        try:
            made = concatenate(maps, agree) if signs is None else add(maps, signs, agree)
        except InexactError as error:
            self._note_branches(regions, str(error))
            return None
        nodes: dict[Node, float] = {}
        for region in regions:
            nodes |= region.nodes
        rules = frozenset[str]().union(*(r.rules for r in regions))
        if signs is None:
            text = f"[{'; '.join(r.text for r in regions)}]"
        else:
            parts = [r.text if s < 0 else bare(r.text) for s, r in zip(signs, regions, strict=True)]
            words = [("- " if s < 0 else "+ ") + part for s, part in zip(signs, parts, strict=True)]
            text = f"({' '.join(words).removeprefix('+ ')})"
        rules |= {"sum" if signs else "concat"}
        return Region(regions[0].source, made, nodes, _shortened(text), rules)

    def _bordered(self, value: Value) -> list[Region]:
        border = read_border(value)
        if border is None or any(n.name in self._reserved for n in border.nodes):
            return []
        *before, last = border.nodes
        found = self._after(last, Reading(border.x, border.map, "pad({})"))
        for region in found:
            region.nodes |= dict.fromkeys(before, float(border.map.outputs))
        return found

    # --- what is left alone ----------------------------------------------------------------------

    def _note_unless_costly(
        self, node: Node, reading: Reading, region: Region, reason: str
    ) -> None:
        """Only where the layers would be fused if it were exact: not a narrow layer between wide
        ones."""
        if len(region.nodes) != 1:
            return
        (other,) = region.nodes
        if not {node.op_type, other.op_type} & set(WEIGHTED) or reading.map.outside is not None:
            return
        if self._readers[other.outputs[0]] != 1:
            return
        work = reading.map.work * region.map.window.density
        if compose(reading.map, region.map, exact=False).work > region.work + work:
            return
        kind = f"{other.op_type} + {node.op_type}"
        self.inexact.append(Unfused(kind, (other.name, node.name), f"'{node.name}' {reason}"))

    def _note_inexact(self, node: Node, x: Value | None, reason: str) -> None:
        before = None if x is None else x.producer
        if before is not None and before.op_type in WEIGHTED and not before.domain:
            kind = f"{before.op_type} + {node.op_type}"
            names = (before.name, node.name)
            self.inexact.append(Unfused(kind, names, f"'{node.name}': {reason}"))

    def _note_branches(self, regions: Sequence[Region], reason: str) -> None:
        names = tuple(n.name for r in regions for n in r.nodes)
        if sum(r.is_weighted for r in regions) > 1:
            self.inexact.append(Unfused("parallel branches", names, reason))


def _rules_of(node: Node, outer: LinearMap, region: Region) -> set[str]:
    """Which rule of the algebra a composition uses."""
    rules = {"BN"} if node.op_type == "BatchNormalization" else set()
    if not region.nodes:
        return rules
    if outer.window.is_unit and outer.is_depthwise:
        return rules | {"scale"}
    if region.map.window.is_unit and region.map.is_depthwise:
        return rules | {"before"}
    return rules | {"chain"}


def _sizes_agree(values: Sequence[Value]) -> bool:
    """Whether the results are known to be of one spatial size."""
    types = [v.type for v in values]
    if any(t is None or not t.is_static for t in types):
        return False
    return len({t.dims[2:] for t in types if t is not None}) == 1


def bare(text: str) -> str:
    """Without parentheses around all of it."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if letter == ")" and index and index == len(text) - 1 else text
    return text


def _shortened(text: str) -> str:
    """A formula that can be read: sums of sums of the same double with each."""
    return text if len(text) <= _LONGEST else "f({})"
