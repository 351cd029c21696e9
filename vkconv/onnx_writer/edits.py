"""What a rewrite did to one graph, brought to its GraphProto.

A rewrite changes more than it fuses: constants are folded, identities go. Only nodes that it fused
are taken from it. Starting at the graph's outputs, every value is computed by the fused node that
now gives it, else by the node of the file that always did; so whatever the rewrite had no reason to
touch stays, word for word, and what nothing reads any more goes. Names tell values apart: a rewrite
keeps the name of each value that it keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from onnx import GraphProto, NodeProto

from vkconv.ir import Graph, Names, Node, Value
from vkconv.onnx_reader.graphs import in_order, reads
from vkconv.onnx_reader.tensors import text
from vkconv.onnx_writer.nodes import node_proto, same, tensor_proto

__all__ = ["GraphEditor"]


@dataclass
class _Edited:
    """The nodes of the result: ``kept`` of the file (positions), ``made`` by fusion (likewise, in
    the rewritten graph), and constants to add."""

    kept: set[int] = field(default_factory=set)
    made: set[int] = field(default_factory=set)
    constants: dict[str, Value] = field(default_factory=dict)


class GraphEditor:
    """A GraphProto with the graph that was read from it, before that is rewritten.

    lists_initializers: whether the graph's initializers have to be among its inputs.
    """

    def __init__(
        self,
        proto: GraphProto,
        graph: Graph,
        names: Names,
        label: str,
        lists_initializers: bool = False,
    ) -> None:
        self.graph = graph
        #: after ``write``: names of the nodes that went, and of the inputs
        self.removed: list[str] = []
        self.lost_inputs: list[str] = []
        self._proto, self._names, self._label = proto, names, label
        self._lists_initializers = lists_initializers
        self._items: list[NodeProto] = in_order(proto, label)
        self._producer = {o: i for i, item in enumerate(self._items) for o in item.output if o}
        #: what was read, held on to so that ``id`` tells it from what a rewrite makes
        self._nodes = list(graph.nodes)
        self._values = {id(value): value for value in graph.values()}
        # nodes are read in the order of the items
        self._origin = {id(node): position for position, node in enumerate(self._nodes)}
        self._attributes = {id(node): dict(node.attributes) for node in self._nodes}
        self._reads = _all_reads(self._items)
        self._live = self._closure(text(info.name) for info in proto.output)
        self._bodies = [
            GraphEditor(item.g, body, names, label)
            for node in self._nodes
            for item in self._items[self._origin[id(node)]].attribute
            if isinstance(body := node.attributes.get(text(item.name)), Graph)
        ]
        self._new_names: dict[int, str] = {}

    def all(self) -> Iterator[GraphEditor]:
        """The editor itself and those of the graphs inside."""
        yield self
        for body in self._bodies:
            yield from body.all()

    def write(self) -> bool:
        """Brings to the GraphProto what was done to the graphs; False when that is nothing."""
        changed = [body for body in self._bodies if body.write()]
        into = {fusion.into for fusion in self.graph.fusions}
        made = [
            node
            for node in self.graph.nodes
            if node.fused or node.name in into or not self._is_as_read(node)
        ]
        if made:
            self._replace_nodes(made, self._edited(made))
        if made or changed:
            self._sweep()
        return bool(made or changed)

    # --- what was read -----------------------------------------------------------------------

    def _closure(self, names: Iterable[str]) -> set[int]:
        """Positions of the items that compute these values."""
        found: set[int] = set()
        waiting = [self._producer[name] for name in names if name in self._producer]
        while waiting:
            position = waiting.pop()
            if position not in found:
                found.add(position)
                needed = reads(self._items[position])
                waiting += [self._producer[name] for name in needed if name in self._producer]
        return found

    def _is_as_read(self, node: Node) -> bool:
        """Whether a node computes what it did when it was read; maybe from a value further up."""
        if id(node) not in self._origin:
            return False
        item, before = self._items[self._origin[id(node)]], self._attributes[id(node)]
        return (
            node.op_type == item.op_type
            and all(id(value) in self._values for value in node.present_inputs)
            and node.attributes.keys() == before.keys()
            and all(same(value, before[key]) for key, value in node.attributes.items())
        )

    # --- what is to be there -----------------------------------------------------------------

    def _edited(self, made: list[Node]) -> _Edited:
        """Follows the outputs, and what nothing read before, to all nodes they need."""
        fused = {id(value): index for index, node in enumerate(made) for value in node.outputs}
        by_name = {v.name: fused[i] for i, v in self._values.items() if i in fused}
        folded = {v.name: v for v in self._values.values() if v.array is not None}
        gone = {self._origin[id(node)] for node in made if id(node) in self._origin}
        computable = self._computable(by_name, set(folded), gone)
        result = _Edited()
        waiting = [text(info.name) for info in self._proto.output]
        for position in computable - self._live:  # read by nothing, and not for us to judge
            result.kept.add(position)
            waiting += reads(self._items[position])
        while waiting:
            name = waiting.pop()
            position = self._producer.get(name, -1)
            if name in by_name:
                waiting += self._reach(by_name[name], made, fused, result)
            elif position in computable or (position >= 0 and name not in folded):
                if position not in result.kept:
                    result.kept.add(position)
                    waiting += reads(self._items[position])
            elif position >= 0:
                result.constants[name] = folded[name]
        return result

    def _computable(self, by_name: dict[str, int], folded: set[str], gone: set[int]) -> set[int]:
        """Items that can stay: none of what they need has been fused away."""
        there = set(by_name) | folded
        found: set[int] = set()
        for position, item in enumerate(self._items):
            needed = (name for name in reads(item) if name in self._producer)
            if position not in gone and all(name in there for name in needed):
                found.add(position)
                there.update(item.output)
        return found

    def _reach(
        self, index: int, made: list[Node], fused: dict[int, int], result: _Edited
    ) -> list[str]:
        """Adds a fused node, and those fused nodes whose new values it reads; returns the names of
        the file's values that they read."""
        names: list[str] = []
        waiting = [index]
        while waiting:
            index = waiting.pop()
            if index in result.made:
                continue
            result.made.add(index)
            for value in made[index].present_inputs:
                if id(value) in self._values:
                    names.append(value.name)
                elif id(value) in fused:
                    waiting.append(fused[id(value)])
                else:
                    result.constants[self._name_of(value)] = value
        return names

    def _name_of(self, value: Value) -> str:
        if id(value) in self._values:
            return value.name
        if id(value) not in self._new_names:
            self._new_names[id(value)] = self._names.free(value.name)
        return self._new_names[id(value)]

    # --- the edit ----------------------------------------------------------------------------

    def _replace_nodes(self, made: list[Node], edited: _Edited) -> None:
        """The nodes of the result, each where it was; a fused one where its output was computed."""
        placed = [(position, self._items[position]) for position in edited.kept]
        position = len(self._items)
        for index in reversed(range(len(made))):
            node = made[index]
            if index in edited.made:
                named = [self._producer.get(value.name, position) for value in node.outputs]
                position = min(position, *named)
                placed.append((position, self._written(node)))
        kept = edited.kept | {self._origin[id(n)] for n in made if id(n) in self._origin}
        self.removed = [
            node.name for position, node in enumerate(self._nodes) if position not in kept
        ]
        placed.sort(key=lambda pair: pair[0])
        sorted_nodes = GraphProto()
        sorted_nodes.node.extend(item for _, item in placed)
        del self._proto.node[:]
        self._proto.node.extend(in_order(sorted_nodes, self._label))
        for name, value in edited.constants.items():
            assert value.array is not None
            tensor = tensor_proto(name, value.array)
            self._proto.initializer.append(tensor)
            if self._lists_initializers:
                info = self._proto.input.add(name=name)
                info.type.tensor_type.elem_type = tensor.data_type
                for size in tensor.dims:
                    info.type.tensor_type.shape.dim.add(dim_value=size)

    def _written(self, node: Node) -> NodeProto:
        position = self._origin.get(id(node))
        origin = None if position is None else self._items[position]
        before: dict[str, Any] = self._attributes.get(id(node), {})
        opset = self.graph.opsets.get(node.domain, 1)
        return node_proto(node, origin, before, self._name_of, opset)

    def _sweep(self) -> None:
        """Takes away what belonged to values that are gone: weights, types, annotations."""
        now = _all_reads(self._proto.node) | {info.name for info in self._proto.output}
        unread = self._reads - now
        computed = {name for item in self._proto.node for name in item.output}
        gone = {name for name in self._producer if name not in computed}
        graph = self._proto
        dense = [tensor.name for tensor in graph.initializer]
        sparse = [tensor.values.name for tensor in graph.sparse_initializer]
        gone |= unread & {*dense, *sparse}
        _drop(graph.initializer, [name in unread for name in dense])
        _drop(graph.sparse_initializer, [name in unread for name in sparse])
        held = {tensor.name for tensor in self._proto.initializer}
        gone -= held
        _drop(graph.value_info, [info.name in gone for info in graph.value_info])
        # an initializer among the inputs is a default, which callers could override
        defaults = gone & unread
        self.lost_inputs = [info.name for info in graph.input if info.name in defaults]
        _drop(graph.input, [info.name in defaults for info in graph.input])
        notes = graph.quantization_annotation
        _drop(notes, [note.tensor_name in gone for note in notes])


def _all_reads(items: Iterable[NodeProto]) -> set[str]:
    return {name for item in items for name in reads(item)}


def _drop(field: Any, flags: list[bool]) -> None:
    """Removes the flagged entries of a repeated field."""
    for index in reversed(range(len(flags))):
        if flags[index]:
            del field[index]
