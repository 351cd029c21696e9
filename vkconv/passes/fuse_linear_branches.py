"""Every tree of linear layers between two values becomes one layer.

Convolutions, normalisations, constant factors and offsets, average pools, pads and crops, their
sums and their concatenations are all maps of one algebra (``linear_map``); a region that is one map
of its source (``linear_regions``) is replaced by one Conv, ConvTranspose, Gemm or MatMul when

- nothing else reads what lies between source and result, the graph's outputs included,
- the borders agree exactly,
- it takes no more multiplications than the nodes it replaces, and
- the weights, computed in float64 and rounded once, are finite.

The node of the largest kernel stays, with its name; the result keeps its own. What is left alone
although it looks fusible is noted in ``graph.unfused``.
"""

from __future__ import annotations

from collections.abc import Collection

from vkconv.ir import Graph, Names, Node, Unfused, Value
from vkconv.passes.linear_borders import MOVING
from vkconv.passes.linear_layers import (
    UnfitError,
    layer_for,
    turn_into,
    turn_into_addition,
)
from vkconv.passes.linear_map import LinearMap, embedded, offset_only, settled
from vkconv.passes.linear_nodes import WEIGHTED
from vkconv.passes.linear_products import Reading
from vkconv.passes.linear_records import Records
from vkconv.passes.linear_regions import Region, Regions
from vkconv.passes.linear_terms import MOST_TERMS, clusters_of_terms, terms_of


def fuse_linear_branches(graph: Graph, reserved: Collection[str] = ()) -> None:
    """``reserved``: names of nodes that belong to something else and stay."""
    _Fusing(graph, reserved).run()


#: a kernel of more elements may not be larger than those it is made of: models are untrusted, and
#: a pool of any size is a short node
_LARGE_KERNEL = 1 << 22
#: maps of maps are computed when they are this deep
_DEPTH = 16


class _Fusing:
    """One walk over a graph, in order: what a node reads is fused before it."""

    def __init__(self, graph: Graph, reserved: Collection[str]) -> None:
        self._graph = graph
        self._regions = Regions(graph, reserved)
        self._uses = graph.uses()
        self._outputs = set(graph.outputs)
        self._order = {node: float(i) for i, node in enumerate(graph.nodes)}
        self._places = dict(self._order)
        self._records = Records({n: n.op_type for n in graph.nodes}, self._order)
        self._gone: set[Node] = set()
        self._unfused: list[Unfused] = []

    def run(self) -> None:
        for node in list(self._graph.nodes):
            if node in self._gone or len(node.outputs) != 1 or node.op_type in MOVING:
                continue
            if not self._fuse_at(node) and self._regions.is_sum(node):
                self._fuse_terms(node)
        self._finish()

    # --- one result ------------------------------------------------------------------------------

    def _fuse_at(self, sink: Node) -> bool:
        """Replace the largest region that ends in ``sink``."""
        result = sink.outputs[0]
        found = [r for r in self._regions.of(result).values() if self._is_candidate(r)]
        noted: list[Unfused] = []
        for region in sorted(found, key=lambda r: -len(r.nodes)):
            reason = self._obstacle(region, {sink})
            if reason is None:
                reason = self._replace(region, sink, result)
            if reason is None:
                return True
            names = tuple(n.name for n in self._records.sorted(region.nodes))
            noted.append(Unfused(self._records.kind(region.nodes, region.rules), names, reason))
        # the smallest says most about why; that a product feeds a product is nothing to remark on
        if sink.op_type not in WEIGHTED:
            self._unfused += noted[-1:]
        return False

    def _is_candidate(self, region: Region) -> bool:
        """Several nodes with a kernel among them, and none that would cost more in one layer.

        Of layers one behind the other that would, nothing is said: a narrow layer between wide
        ones, or a depthwise one before a dense one, is how it should be.
        """
        if len(region.nodes) < 2 or not region.is_weighted:
            return False
        return self._work(region.map) <= region.work or bool(region.rules & {"sum", "concat"})

    @staticmethod
    def _work(made: LinearMap) -> float:
        return embedded(made, made.window.standard()).work

    def _obstacle(self, region: Region, readers: Collection[Node]) -> str | None:
        """Why a region stays as it is; ``readers`` may read its results."""
        for node in region.nodes:
            if node in readers:
                continue
            for value in node.outputs:
                if value in self._outputs:
                    return f"'{value.name}' is an output of the model"
                for reader in self._uses.get(value, []):
                    if reader not in region.nodes and reader not in readers:
                        return f"'{value.name}' is read by '{reader.name}' too"
        work = self._work(region.map)
        if region.map.size > max(_LARGE_KERNEL, 4 * self._weights(region)):
            return f"its kernel would have {region.map.size} elements"
        if work > region.work:
            return f"one layer would take {work / region.work:.2g} times the multiplications"
        return None

    def _weights(self, region: Region) -> int:
        """Elements of the kernels that a region's nodes have."""
        readings = (self._regions.reading(n) for n in region.nodes if n.op_type in WEIGHTED)
        return sum(r.map.size for r in readings if r is not None)

    def _replace(self, region: Region, sink: Node | None, result: Value) -> str | None:
        """Put one layer in the region's place; returns why not."""
        node, own = self._survivor(region)
        made = region.map if region.map.depth < _DEPTH else settled(region.map)
        apart = self._regions.is_rows(result) and made.shift is not None
        if apart and (sink is None or sink is node or len(region.nodes) < 3):
            return "a product of more than two axes has no bias"
        addition = sink if apart else None
        try:
            layer = layer_for(node, own, made, self._records.dtype(node))
        except UnfitError as error:
            return str(error)
        self._records.note(node, region, layer, addition)
        self._forget(region)
        turn_into(node, layer, region.source)
        readings = self._regions.made
        if addition is None:
            node.outputs = [result]
            result.producer = node
            self._places[node] = self._places.get(sink or node, 0.0)
            readings[node] = Reading(region.source, made, region.text)
        else:
            middle = Value(node.outputs[0].name, result.type)
            node.outputs, middle.producer = [middle], node
            turn_into_addition(addition, middle)
            self._regions.adopt(middle, result)
            self._uses[middle] = [addition]
            self._places[node] = self._places[addition] - 0.5
            product, offset = offset_only(made)
            readings[node] = Reading(region.source, product, "W {}")
            readings[addition] = Reading(middle, offset, "({} + t)")
        self._gone.update(n for n in region.nodes if n not in (node, addition))
        self._uses.setdefault(region.source, []).append(node)
        self._regions.forget(result)
        return None

    def _survivor(self, region: Region) -> tuple[Node, LinearMap]:
        """The node that stays, and what it computes now: preferably one of the same window, then
        the one that does most."""
        found = []
        for node in self._records.sorted(region.nodes):
            reading = self._regions.reading(node) if node.op_type in WEIGHTED else None
            if reading is not None:
                alike = reading.map.window.transposed == region.map.window.transposed
                same = reading.map.window == region.map.window
                found.append((alike, same, reading.map.work, node, reading.map))
        best = max(found, key=lambda f: f[:3])
        return best[3], best[4]

    # --- some terms of a sum ---------------------------------------------------------------------

    def _fuse_terms(self, root: Node) -> None:
        """Make one layer of those terms of a sum that have one source."""
        if self._is_inner(root.outputs[0]) or root.op_type == "Sub":
            return
        terms, nodes = terms_of(root, self._is_inner)
        nodes = self._records.sorted(nodes)
        types = {v.type for v in terms}
        if not 3 <= len(terms) <= MOST_TERMS or (len(types) > 1 and None not in types):
            return
        clusters = clusters_of_terms(terms, self._regions, lambda r: self._work(r.map))
        for members, region in clusters:
            rest = [v for i, v in enumerate(terms) if i not in members]
            if rest and self._obstacle(region, nodes) is None:
                result = Value(f"{root.outputs[0].name}/terms", terms[0].type)
                self._regions.adopt(result, terms[0])
                if self._replace(region, None, result) is None:
                    self._rechain([result, *rest], nodes, root, result)
                    return

    def _is_inner(self, value: Value) -> bool:
        """Whether a value is a sum that only another sum reads."""
        node, readers = value.producer, self._uses.get(value, [])
        if node is None or value in self._outputs or len(readers) != 1:
            return False
        both = (node, readers[0])
        return all(self._regions.is_sum(n) and n.op_type != "Sub" for n in both)

    def _rechain(self, terms: list[Value], nodes: list[Node], root: Node, made: Value) -> None:
        """Add up ``terms`` by as many of ``nodes`` as it takes; the others are fused."""
        layer = made.producer
        assert layer is not None
        kept, gone = nodes[1 - len(terms) :], nodes[: 1 - len(terms)]
        for value in {v for n in nodes for v in n.present_inputs}:
            self._uses[value] = [n for n in self._uses.get(value, []) if n not in nodes]
        total, place = terms[0], self._order[root] - 0.5
        self._places[layer] = place
        for index, (node, term) in enumerate(zip(kept, terms[1:], strict=True)):
            node.inputs = [total, term]
            for value in (total, term):
                self._uses.setdefault(value, []).append(node)
            total = node.outputs[0]
            self._regions.forget(total)
            if node is not root:
                self._places[node] = place + (index + 1) / (4 * len(terms))
        self._records.add_gone(layer, gone)
        self._gone |= set(gone)

    # --- keeping account -------------------------------------------------------------------------

    def _forget(self, region: Region) -> None:
        """The region's nodes read nothing from now on."""
        for value in {v for n in region.nodes for v in n.present_inputs}:
            self._uses[value] = [n for n in self._uses.get(value, []) if n not in region.nodes]
        for node in region.nodes:
            self._regions.made.pop(node, None)
            self._regions.forget(node.outputs[0])

    def _finish(self) -> None:
        """The graph's nodes in their new order, their weights, and the report."""
        found = [*self._regions.inexact, *self._unfused]
        if self._records:
            alive = [n for n in self._graph.nodes if n not in self._gone]
            self._graph.nodes = sorted(alive, key=self._places.__getitem__)
            self._regions.clear()
            names = Names({v.name for v in self._graph.values()})
            self._graph.fusions += self._records.finish(names)
        present = {n.name for n in self._graph.nodes}
        for unfused in found:
            if present.issuperset(unfused.nodes) and unfused not in self._graph.unfused:
                self._graph.unfused.append(unfused)
