"""A part of a model as a model of its own: from some values to others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, ValueInfoProto, helper

from vkconv.errors import InvalidModelError
from vkconv.ir import TensorType
from vkconv.onnx_reader import Source
from vkconv.onnx_reader.graphs import in_order, reads
from vkconv.onnx_writer.storage import StoredModel

__all__ = ["sub_model"]


def sub_model(
    source: Source, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]
) -> tuple[StoredModel, list[str]]:
    """The nodes that compute ``outputs`` from ``inputs`` and the model's constants, and the names
    of those inputs that they need.

    Node and value names, attributes and opsets are the model's. Raises InvalidModelError where an
    output is not a value of the model's graph, or needs something that is not given.
    """
    graph = source.model.graph
    items = in_order(graph, source.label)
    producer = {name: i for i, item in enumerate(items) for name in item.output if name}
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {sparse.values.name for sparse in graph.sparse_initializer}
    needed: dict[str, None] = {}
    chosen: set[int] = set()
    waiting = list(outputs)
    read: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in read:
            continue
        read.add(name)
        if name in inputs:
            needed[name] = None
        elif name in producer:
            chosen.add(producer[name])
            waiting += reads(items[producer[name]])
        elif name not in constants:
            raise InvalidModelError(f"{source.label} has no value '{name}' to take a part from")
    if not chosen:
        raise InvalidModelError("no node of the model lies between these values")
    made = ModelProto(
        ir_version=source.model.ir_version,
        producer_name=source.model.producer_name,
        opset_import=source.model.opset_import,
        functions=source.model.functions,
    )
    part = GraphProto(name=f"part of {graph.name}" if graph.name else "part")
    part.node.extend(items[i] for i in sorted(chosen))
    part.initializer.extend(t for t in graph.initializer if t.name in read - set(inputs))
    part.sparse_initializer.extend(
        s for s in graph.sparse_initializer if s.values.name in read - set(inputs)
    )
    given = [name for name in inputs if name in needed]
    part.input.extend(_info(name, inputs[name]) for name in given)
    part.output.extend(_info(name, type_) for name, type_ in outputs.items())
    made.graph.CopyFrom(part)
    return StoredModel(made, source.folder), given


def _info(name: str, type_: TensorType) -> ValueInfoProto:
    dtype = np.dtype(object if type_.dtype == "string" else type_.dtype)
    element = helper.np_dtype_to_tensor_dtype(dtype)
    return helper.make_tensor_value_info(name, element, type_.shape)
