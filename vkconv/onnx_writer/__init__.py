"""Rewritten graphs -> ONNX model. With onnx_reader the only room that imports onnx.

The model that was read is edited where a rewrite changed its graph, and nowhere else: nodes,
initializers, types, metadata, functions and whatever this package has no form for stay as they were
written.

    __init__  a model, the graphs to rewrite in it, and the model they make
    edits     what a rewrite did to one graph, brought to its GraphProto
    nodes     a node and a constant of the graph -> NodeProto, TensorProto
    opsets    operators that the model's opset does not have
    storage   a model -> bytes, or a file and the file of its external data
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from vkconv.ir import Graph, Names
from vkconv.onnx_reader import Source, read_graph
from vkconv.onnx_reader.tensors import text
from vkconv.onnx_writer.edits import GraphEditor
from vkconv.onnx_writer.nodes import held_graphs
from vkconv.onnx_writer.opsets import at_opset, missing_operators
from vkconv.onnx_writer.storage import StoredModel

__all__ = ["ModelEditor", "StoredModel", "at_opset", "contents_of", "missing_operators"]

_FLOATS = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
}


class ModelEditor:
    """A model whose graphs may be rewritten: ``graphs`` in place, then ``write``.

    Names that a rewrite makes up are kept apart from all of the model's.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._model = source.model
        if source.is_callers:
            self._model = ModelProto()
            self._model.CopyFrom(source.model)
        names = Names(set(_names(self._model.graph)))
        graph = read_graph(Source(self._model, source.folder, source.label))
        # until IR version 4 every initializer had to be listed as an input
        lists_initializers = self._model.ir_version < 4
        self._main = GraphEditor(self._model.graph, graph, names, source.label, lists_initializers)

    @property
    def graph(self) -> Graph:
        """The model's graph, without those that its nodes hold."""
        return self._main.graph

    @property
    def graphs(self) -> list[Graph]:
        """The model's graph, then those that If, Loop and Scan hold, at any depth."""
        return [editor.graph for editor in self._main.all()]

    def write(self, metadata: Mapping[str, str]) -> ModelProto:
        """The model with what was done to ``graphs``; the same when nothing was.

        ``metadata`` is added where something was. External data stays where it is.
        """
        if self._main.write():
            for key, value in metadata.items():
                _set_metadata(self._model, key, value)
        return self._model

    @property
    def lost_inputs(self) -> list[str]:
        """Inputs with a default that callers could override, now part of fused weights."""
        return [] if self._model.ir_version < 4 else self._main.lost_inputs

    @property
    def removed(self) -> list[str]:
        """Names of the nodes that ``write`` took away, in the order of the graphs."""
        return [name for editor in self._main.all() for name in editor.removed]


def contents_of(model: ModelProto) -> tuple[dict[str, int], int]:
    """How many nodes of each type a model has, and how many floats its initializers and Constant
    nodes hold; those of the graphs that nodes hold included."""
    nodes: Counter[str] = Counter()
    parameters = 0
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        tensors = [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
        for node in graph.node:
            domain = _domain(node)
            nodes[f"{domain}.{text(node.op_type)}" if domain else text(node.op_type)] += 1
            if node.op_type == "Constant":
                tensors += [item.t for item in node.attribute if item.HasField("t")]
            waiting += held_graphs(node)
        floats = (tensor for tensor in tensors if tensor.data_type in _FLOATS)
        parameters += sum(math.prod(tensor.dims) for tensor in floats)
    return dict(nodes), parameters


def _domain(node: NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else text(node.domain)


def _set_metadata(model: ModelProto, key: str, value: str) -> None:
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    model.metadata_props.add(key=key, value=value)


def _names(graph: GraphProto) -> Iterator[str]:
    """Every name in a graph and in those its nodes hold."""
    for infos in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from (text(info.name) for info in infos)
    yield from (text(sparse.values.name) for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield text(node.name)
        yield from (text(name) for names in (node.input, node.output) for name in names)
        for held in held_graphs(node):
            yield from _names(held)
