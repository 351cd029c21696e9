"""GraphProto -> Graph: values by name, nodes in topological order, attributes as Python values."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from vkconv.errors import InvalidModelError
from vkconv.ir import Dim, Graph, Names, Node, Opaque, TensorType, Value, constant
from vkconv.model_file import Weights
from vkconv.onnx_reader.tensors import TensorReader, checked_dims, dtype_name, is_known, text


class GraphReader:
    """One pass over a GraphProto; ``_values`` maps the names defined so far.

    The graphs that If, Loop and Scan hold read names of the graph around them. Such a graph is read
    by a reader with ``outer``, and becomes a closed one: what it captures (``captured``: by name,
    as the outer graph has it) are further inputs of the graph and of its node.
    """

    def __init__(
        self,
        model: ModelProto,
        folder: Path | None,
        label: str,
        outer: GraphReader | None = None,
        weights: Weights | None = None,
    ) -> None:
        self._model, self._label = model, label
        self._tensors: TensorReader = (
            TensorReader(folder, weights) if outer is None else outer._tensors
        )
        self._outer = outer
        self._folder = folder
        self.captured: dict[str, Value] = {}
        self._values: dict[str, Value] = {}
        self._opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}

    def read(self) -> Graph:
        self._check_opset(self._model.graph)
        return self._read_graph(self._model.graph)

    def _read_graph(self, proto: GraphProto) -> Graph:
        for tensor in proto.initializer:
            self._define(self._constant(tensor))
        for sparse in proto.sparse_initializer:
            self._define(constant(text(sparse.values.name), self._tensors.sparse(sparse)))
        # an initializer may be listed as an input too: its value is a default, which is kept
        defaults = set(self._values)
        inputs = [self._define(v) for v in map(value_of, proto.input) if v.name not in defaults]
        nodes = self._read_nodes(proto)
        outputs = [self._output(info) for info in proto.output]
        if not outputs and self._outer is None:
            raise InvalidModelError(f"{self._label} has no outputs")
        return Graph(
            name=text(proto.name),
            inputs=inputs,
            outputs=outputs,
            nodes=nodes,
            opsets=self._opsets,
            metadata={text(e.key): text(e.value) for e in self._model.metadata_props},
            producer=text(self._model.producer_name),
            source_nodes=[(n.name, n.op_type) for n in nodes],
            output_names=[text(info.name) for info in proto.output],
        )

    def _check_opset(self, proto: GraphProto) -> None:
        """IR version 3 made opset imports mandatory; before, opset 1 was meant."""
        if "" in self._opsets:
            return
        if self._model.ir_version >= 3 and any(not _domain(n.domain) for n in proto.node):
            raise InvalidModelError(
                f"{self._label} does not say which opset it uses; export it again or copy it whole"
            )
        self._opsets[""] = 1

    # --- values ------------------------------------------------------------------------------

    def _define(self, value: Value) -> Value:
        if value.name in self._values:
            raise InvalidModelError(f"{self._label}: the name '{value.name}' is defined twice")
        self._values[value.name] = value
        return value

    def _find(self, name: str, what: str) -> Value:
        if name not in self._values:
            if self._outer is None:
                raise InvalidModelError(f"{self._label}: {what} is not computed by any node")
            self._capture(self._outer._find(name, what))
        return self._values[name]

    def _capture(self, outer: Value) -> None:
        """A value of this graph for one of the graph around it; a constant is shared."""
        self._values[outer.name] = Value(outer.name, outer.type, outer.array)
        if outer.array is None:
            self.captured[outer.name] = outer

    def _output(self, info: ValueInfoProto) -> Value:
        declared = value_of(info)
        value = self._find(declared.name, f"graph output '{declared.name}'")
        if value.type is None:
            value.type = declared.type
        return value

    def _constant(self, tensor: TensorProto) -> Value:
        """An initializer. One of an unknown element type has no array, and is reported later."""
        name = text(tensor.name)
        if not is_known(tensor.data_type):
            dims = checked_dims(tensor.dims, name)
            return Value(name, TensorType(dtype_name(tensor.data_type), dims))
        return constant(name, self._tensors.dense(tensor))

    # --- nodes -------------------------------------------------------------------------------

    def _read_nodes(self, proto: GraphProto) -> list[Node]:
        # names are spread over nodes and values, and what is made up here collides with neither
        taken = Names({text(n.name) for n in proto.node} | set(self._values))
        taken.add(text(o) for n in proto.node for o in n.output)
        seen: set[str] = {""}
        types = {v.name: v.type for v in map(value_of, proto.value_info)}
        nodes: list[Node] = []
        for index, item in enumerate(in_order(proto, self._label)):
            name = text(item.name)
            if name in seen:  # unnamed, or named as an earlier one: plans tell nodes by name
                name = taken.free(name or f"{text(item.op_type)}_{index}")
            seen.add(name)
            nodes.append(self._node(item, name, types, taken))
        return nodes

    def _node(
        self, item: NodeProto, name: str, types: dict[str, TensorType | None], taken: Names
    ) -> Node:
        op_type, domain = text(item.op_type), _domain(item.domain)
        inputs = [
            self._find(i, f"input '{i}' of node '{name}' ({op_type})") if i else None
            for i in map(text, item.input)
        ]
        while inputs and inputs[-1] is None:
            inputs.pop()
        names = [text(o) for o in item.output]
        while len(names) > 1 and not names[-1]:
            names.pop()
        if not names:
            raise InvalidModelError(f"{self._label}: node '{name}' ({op_type}) has no output")
        outputs = [
            self._define(Value(o or taken.free(f"{name}/unused"), types.get(o))) for o in names
        ]
        attributes = {
            text(a.name): self._attribute(a, name)
            for a in item.attribute
            if a.type != AttributeProto.GRAPH
        }
        given = [text(a.name) for a in item.attribute]
        if len(set(given)) < len(given):
            raise InvalidModelError(f"node '{name}' ({op_type}) has an attribute twice: {given}")
        readers = self._subgraphs(item, attributes)
        if readers:
            formal = [self._find(i, "") if i else None for i in map(text, item.input)]
            inputs = [*formal, *_close(readers, attributes)]
        opset = self._opsets.get(domain, 1)
        return Node(op_type, inputs, outputs, attributes, name, domain, opset)

    def _subgraphs(self, item: NodeProto, attributes: dict[str, Any]) -> list[GraphReader]:
        """Reads the graphs a node holds into ``attributes``; the readers know what is captured."""
        readers = []
        for given in item.attribute:
            if given.type == AttributeProto.GRAPH:
                reader = GraphReader(self._model, self._folder, self._label, self)
                reader._opsets = self._opsets
                attributes[text(given.name)] = reader._read_graph(given.g)
                readers.append(reader)
        return readers

    def _attribute(self, item: AttributeProto, node: str) -> Any:
        kind = item.type
        if kind == AttributeProto.INT:
            return item.i
        if kind == AttributeProto.FLOAT:
            return item.f
        if kind == AttributeProto.STRING:
            return item.s.decode("utf-8", "replace")
        if kind == AttributeProto.INTS:
            return tuple(item.ints)
        if kind == AttributeProto.FLOATS:
            return tuple(item.floats)
        if kind == AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in item.strings)
        if kind == AttributeProto.TENSOR:
            if not is_known(item.t.data_type):
                return Opaque(f"a tensor of {dtype_name(item.t.data_type)}")
            return self._tensors.dense(item.t)
        if kind == AttributeProto.SPARSE_TENSOR:
            if not is_known(item.sparse_tensor.values.data_type):
                return Opaque("a sparse tensor of unknown element type")
            return self._tensors.sparse(item.sparse_tensor)
        if kind == AttributeProto.GRAPHS:
            return Opaque("a list of graphs")
        if kind == AttributeProto.UNDEFINED:
            raise InvalidModelError(f"node '{node}': attribute '{text(item.name)}' has no type")
        return Opaque(str(AttributeProto.AttributeType.Name(kind)).lower().replace("_", " "))


def _close(readers: list[GraphReader], attributes: dict[str, Any]) -> list[Value]:
    """Makes what any of the graphs captured an input of each; returns those values outside."""
    captured = {name: value for reader in readers for name, value in reader.captured.items()}
    graphs = [value for value in attributes.values() if isinstance(value, Graph)]
    for reader, graph in zip(readers, graphs, strict=True):
        for name, outer in captured.items():
            inside = reader._values[name] if name in reader.captured else None
            graph.inputs.append(inside or Value(name, outer.type))
    if captured:
        attributes["captured"] = len(captured)
    return list(captured.values())


def value_of(info: ValueInfoProto) -> Value:
    """A value with its declared type; without one when it is no tensor."""
    name = text(info.name)
    if not info.type.HasField("tensor_type"):
        return Value(name)
    tensor = info.type.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return Value(name, TensorType(dtype, None))
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.WhichOneof("value") == "dim_value":
            # some exporters write -1 for a dimension they leave open
            dims.append(dim.dim_value if dim.dim_value >= 0 else None)
        else:
            dims.append(text(dim.dim_param) or None)
    return Value(name, TensorType(dtype, tuple(dims)))


def _domain(name: str | bytes) -> str:
    return "" if name == "ai.onnx" else text(name)


def in_order(proto: GraphProto, label: str) -> list[NodeProto]:
    """Nodes in topological order, in the file's where that is one (as the standard demands)."""
    nodes = list(proto.node)
    producer = {o: i for i, n in enumerate(nodes) for o in n.output if o}
    waits: list[int] = []
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        needed = {producer[i] for i in reads(node) if i in producer}
        waits.append(len(needed))
        for other in needed:
            readers.setdefault(other, []).append(index)
    ready = [i for i, count in enumerate(waits) if not count]
    ordered: list[NodeProto] = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for reader in readers.get(index, []):
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) < len(nodes):
        stuck = next(n for n, count in zip(nodes, waits, strict=True) if count)
        raise InvalidModelError(
            f"{label}: nodes form a cycle through '{text(stuck.name) or text(stuck.op_type)}'"
        )
    return ordered


def reads(node: NodeProto) -> set[str]:
    """Names a node reads, those that the graphs it holds read around them included."""
    names = set(node.input)
    for item in node.attribute:
        if item.type == AttributeProto.GRAPH:
            graph = item.g
            inner = {name for n in graph.node for name in reads(n)}
            inner.update(info.name for info in graph.output)
            inner.difference_update(name for n in graph.node for name in n.output)
            inner.difference_update(info.name for info in graph.input)
            inner.difference_update(tensor.name for tensor in graph.initializer)
            names |= inner
    return names
