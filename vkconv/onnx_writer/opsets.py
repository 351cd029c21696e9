"""Operators that fusion makes and the model's opset does not have yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx.defs
import onnx.version_converter
from onnx import ModelProto

from vkconv.errors import InvalidModelError
from vkconv.ir import Graph, Node
from vkconv.onnx_reader import Source

__all__ = ["at_opset", "missing_operators"]


def missing_operators(graphs: Iterable[Graph], model: ModelProto) -> dict[int, list[Node]]:
    """Nodes whose operator the model's opset does not have, by the position of their graph.

    Only nodes that a rewrite made can be such: their ``opset`` says what they were made for.
    """
    given = _standard_opset(model)
    found = {
        position: [
            node
            for node in graph.nodes
            if not node.domain and node.opset > given and not onnx.defs.has(node.op_type, given, "")
        ]
        for position, graph in enumerate(graphs)
    }
    return {position: nodes for position, nodes in found.items() if nodes}


def at_opset(source: Source, opset: int) -> tuple[Source, int]:
    """The model at another opset, by onnx's converter, and the opset it had.

    Raises InvalidModelError where that converter does not know how.
    """
    given = _standard_opset(source.model)
    try:
        converted = onnx.version_converter.convert_version(source.model, opset)
    except Exception as error:  # C++: several kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidModelError(
            f"needs opset {opset}, and the model cannot be raised to that from {given} ({why}); "
            f"export it with opset {opset} or newer"
        ) from None
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if source.model.HasField(field):
            setattr(converted, field, getattr(source.model, field))
    del converted.metadata_props[:]
    converted.metadata_props.extend(source.model.metadata_props)
    return replace(source, model=converted, is_callers=False), given


def _standard_opset(model: ModelProto) -> int:
    versions = (e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
    return next((int(version) for version in versions), 1)
