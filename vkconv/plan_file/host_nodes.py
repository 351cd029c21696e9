"""Host steps in a plan file: the node's operator and attributes, from which it is made again."""

from __future__ import annotations

import dataclasses
from typing import Any

from vkconv.dispatch import HostSlot, HostStep, View
from vkconv.errors import UnsupportedModelError, VkconvError
from vkconv.ir import Array, Node, TensorType, Value, constant
from vkconv.plan_file.container import Reader, Writer
from vkconv.plan_file.fields import Fields
from vkconv.plan_file.graphs import read_attribute, write_attribute

Place = View | HostSlot | Array | None


def write_host_node(step: HostStep, writer: Writer) -> dict[str, Any]:
    from vkconv.ops.operator import Operator

    operator = getattr(step.compute, "__self__", None)
    if not isinstance(operator, Operator):
        raise UnsupportedModelError(
            f"{step.op_type} '{step.node}' runs on the host and cannot be kept in a plan file"
        )
    names = [f.name for f in dataclasses.fields(operator)]  # type: ignore[arg-type]
    try:
        attributes = {n: write_attribute(getattr(operator, n), writer) for n in names}
    except TypeError as error:
        raise UnsupportedModelError(
            f"{step.op_type} '{step.node}' cannot be kept in a plan file: {error}"
        ) from None
    return {
        "op_type": operator.op_type,
        "domain": operator.domain,
        "version": operator.version,
        "attributes": attributes,
    }


def read_host_step(
    fields: Fields,
    reader: Reader,
    name: str,
    reason: str,
    inputs: tuple[Place, ...],
    outputs: tuple[View | HostSlot, ...],
) -> HostStep:
    """The step, when the operator takes these inputs and gives these outputs."""
    from vkconv.ops.operator import UnknownShapeError
    from vkconv.ops.registry import create, find_operator, infer_types

    given = {k: read_attribute(v, reader, 0) for k, v in fields.table("attributes").items()}
    node = Node(
        fields.text("op_type"),
        [_value(f"input {i}", place) for i, place in enumerate(inputs)],
        [Value(f"output {i}", TensorType(p.dtype, p.shape)) for i, p in enumerate(outputs)],
        {key: value for key, value in given.items() if value is not None},
        name,
        fields.text("domain"),
        fields.integer("version", 0, 10**6),
    )
    if find_operator(node) is None:
        raise fields.wrong("op_type", "an operator of this version")
    try:
        operator = create(node)
        types = infer_types(operator, node)
    except (VkconvError, UnknownShapeError) as error:
        raise fields.fail(f"{node}: {error}") from None
    except Exception as error:
        raise fields.fail(f"{node}: {type(error).__name__}: {error}") from error
    if list(types)[: len(outputs)] != [v.type for v in node.outputs]:
        raise fields.fail(f"the outputs of {node} have other types")
    return HostStep(name, node.op_type, reason, inputs, outputs, operator.reference)


def _value(name: str, place: Place) -> Value | None:
    if place is None:
        return None
    if isinstance(place, (View, HostSlot)):
        return Value(name, TensorType(place.dtype, place.shape))
    return constant(name, place)
