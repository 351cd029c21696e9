"""Operators that the standard defines by other operators, for those that are not known by name; and
those of onnxruntime's quantisation (``quantized_operators``).

A node of such an operator becomes a call of a model-local function that holds the standard's
definition (at the node's opset; often it depends on the types of the inputs, so that every node has
its own), and these are expanded as every other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import onnx.defs
import onnx.shape_inference
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TypeProto,
    ValueInfoProto,
    helper,
)

from vkconv.onnx_reader.functions import inline_functions
from vkconv.onnx_reader.quantized_operators import is_quantized, quantized_definition

#: whether an operator (domain, name) can be run as it is
IsKnown = Callable[[str, str], bool]
#: onnx.defs.OpSchema, whose type information lacks what is asked for here
Schema: TypeAlias = Any

#: definitions may use operators that have one themselves (SoftmaxCrossEntropyLoss), no deeper
MAX_ROUNDS = 4
_DOMAIN = "vkconv.definition"


def expand_definitions(model: ModelProto, is_known: IsKnown, label: str) -> ModelProto:
    """The model with unknown operators replaced by their definitions, where they have one.

    Raises InvalidModelError. The model given is left as it is.
    """
    for _ in range(MAX_ROUNDS):
        opsets = {_short(entry.domain): entry.version for entry in model.opset_import}
        if not any(_may_be_defined(node, opsets, is_known) for node in _nodes(model.graph.node)):
            return model
        changed = ModelProto()
        changed.CopyFrom(model)
        types = _types(changed)
        for node in list(_nodes(changed.graph.node)):
            if not _may_be_defined(node, opsets, is_known):
                continue
            schema = _schema(node, opsets)
            if schema is None:
                function = quantized_definition(node, opsets.get("", 1))
            else:
                function = _definition(schema, node, opsets[_short(node.domain)], types)
            if function is None:
                continue
            function.domain = _DOMAIN
            function.name = f"{node.op_type}_{len(changed.functions)}"
            del function.opset_import[:]
            function.opset_import.extend(changed.opset_import)
            changed.functions.append(function)
            node.domain, node.op_type = function.domain, function.name
        if len(changed.functions) == len(model.functions):
            return model
        changed.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
        model = inline_functions(changed, label)
        kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    return model


def _may_be_defined(node: NodeProto, opsets: dict[str, int], is_known: IsKnown) -> bool:
    """Whether an operator that is not known has a definition, for some of its nodes at least."""
    domain = _short(node.domain)
    if domain not in opsets or is_known(domain, node.op_type):
        return False
    return is_quantized(domain, node.op_type) or _schema(node, opsets) is not None


def _schema(node: NodeProto, opsets: dict[str, int]) -> Schema | None:
    """The schema of an operator that the standard defines by others."""
    domain = _short(node.domain)
    try:
        schema: Schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except (onnx.defs.SchemaError, TypeError):
        # TypeError: a name that is no UTF-8, which protobuf hands out as bytes
        return None
    has_one = schema.has_function or schema.has_context_dependent_function
    return schema if has_one else None


def _definition(
    schema: Schema, node: NodeProto, opset: int, types: dict[str, TypeProto]
) -> FunctionProto | None:
    """The function for the node, which is given all attributes; None where types are missing."""
    given = {item.name for item in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type != AttributeProto.UNDEFINED:
            node.attribute.append(attribute.default_value)
    function = FunctionProto()
    if schema.has_function:
        version = _newest(schema.function_opset_versions, opset)
        function.ParseFromString(schema.get_function_with_opset_version(version))
    else:
        inputs = [types.get(name, TypeProto()) for name in node.input]
        if any(name and name not in types for name in node.input):
            return None
        version = _newest(schema.context_dependent_function_opset_versions, opset)
        try:
            built = schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), [t.SerializeToString() for t in inputs]
            )
        except Exception:  # the C++ builders raise several kinds where a node does not suit them
            return None
        function.ParseFromString(built)
    listed = {*function.attribute, *(item.name for item in function.attribute_proto)}
    function.attribute.extend(name for name in schema.attributes if name not in listed)
    return function


def _newest(versions: Iterable[int], opset: int) -> int:
    known = list(versions)
    return max((v for v in known if v <= opset), default=min(known))


def _types(model: ModelProto) -> dict[str, TypeProto]:
    """Types of all values by name: those declared, and those that onnx infers."""
    with suppress(Exception):  # beyond 2 GiB, or the model contradicts itself: what it declares
        model = onnx.shape_inference.infer_shapes(model)
    found: dict[str, TypeProto] = {}
    for graph in _graphs(model.graph):
        for info in _infos(graph):
            if info.type.WhichOneof("value"):
                found[info.name] = info.type
        for tensor in graph.initializer:
            found.setdefault(
                tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            )
    return found


def _infos(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.value_info
    yield from graph.input
    yield from graph.output


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """These and all nodes of the graphs they hold."""
    for node in nodes:
        yield node
        for graph in _held(node):
            yield from _nodes(graph.node)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph itself and all that its nodes hold."""
    yield graph
    for node in graph.node:
        for held in _held(node):
            yield from _graphs(held)


def _held(node: NodeProto) -> list[GraphProto]:
    return [item.g for item in node.attribute if item.type == AttributeProto.GRAPH]


def _short(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
