"""Graphs as text, for ``vkconv inspect``: a model before, between and after the passes."""

from __future__ import annotations

from typing import Any

from vkconv.errors import InvalidInputError, UnsupportedModelError
from vkconv.ir import Graph, TensorType, Value
from vkconv.onnx_reader import read_model
from vkconv.ops.registry import is_registered
from vkconv.passes import PASSES, infer_and_fold, rewrite
from vkconv.placement import problems


def describe_graph(model: Any, after: str | None = None) -> str:
    """The nodes of ``model`` (path, bytes or ModelProto) after the passes up to ``after``.

    None: after all; "read": as the file has them. Dynamic dimensions stay dynamic. Raises
    InvalidInputError on an unknown pass, InvalidModelError, and UnsupportedModelError unless
    ``after`` is "read".
    """
    names = ["read", "infer_and_fold", *(run.__name__ for run in PASSES)]
    if after is not None and after not in names:
        raise InvalidInputError(f"no pass is called '{after}'; the passes: {', '.join(names)}")
    graph = read_model(model, is_registered)
    if after != "read":
        if found := problems(graph):
            raise UnsupportedModelError.from_nodes(found)
        infer_and_fold(graph)
        if after != "infer_and_fold":
            rewrite(graph, after)
            infer_and_fold(graph)
    return "\n".join([_header(graph), *(_line(graph, i) for i in range(len(graph.nodes)))])


def _header(graph: Graph) -> str:
    inputs = ", ".join(f"{v.name}: {_type(v.type)}" for v in graph.inputs)
    outputs = ", ".join(
        f"{n}: {_type(v.type)}" for n, v in zip(graph.output_names, graph.outputs, strict=True)
    )
    return f"{graph.name}({inputs}) -> {outputs}"


def _line(graph: Graph, index: int) -> str:
    node = graph.nodes[index]
    outputs = ", ".join(f"{v.name}: {_type(v.type)}" for v in node.outputs)
    inputs = ", ".join(_operand(v) for v in node.inputs)
    attributes = ", ".join(f"{k}={_short(v)}" for k, v in node.attributes.items())
    fused = f"  <- {', '.join(node.fused)}" if node.fused else ""
    domain = f"{node.domain}." if node.domain else ""
    return f"  {outputs} = {domain}{node.op_type}({inputs}) {{{attributes}}}{fused}"


def _operand(value: Value | None) -> str:
    if value is None:
        return "-"
    return f"{value.name}: const {_type(value.type)}" if value.is_constant else value.name


def _type(type_: TensorType | None) -> str:
    return "?" if type_ is None else str(type_)


def _short(value: Any) -> str:
    text = str(value).replace("\n", " ")
    return text if len(text) <= 40 else text[:37] + "..."
