"""Sequences of tensors are followed while a model is planned; nodes of tensors are left.

``SequenceAt`` of a known sequence is one of its tensors, ``ConcatFromSequence`` a Concat,
``SplitToSequence`` a Split, ``SequenceLength`` a constant. Nodes that only make sequences are then
read by nothing, and are dropped as any other.

Not a pass of its own: ``infer_and_fold`` calls it on its way, as control flow and the positions in
sequences depend on what is folded, and the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vkconv.errors import InvalidModelError, VkconvError
from vkconv.ir import Array, Names, Node, Value, constant
from vkconv.ops.registry import create, find_operator
from vkconv.ops.sequences import LONGEST, ConcatFromSequence, OfSequences, SplitToSequence
from vkconv.ops.shapes import normalise_axis


class Sequences:
    """The tensors of each sequence of a graph, as far as they are known."""

    def __init__(self) -> None:
        self._known: dict[Value, list[Value]] = {}

    def concerns(self, node: Node) -> bool:
        """Whether the node reads or makes a sequence."""
        if node.domain:
            return False
        if node.op_type == "Identity":
            return node.inputs[0] in self._known
        operator = find_operator(node)
        return operator is not None and issubclass(operator, OfSequences)

    def resolve(self, node: Node, names: Names) -> list[Node]:
        """Nodes to compute what the node does: itself where that is not known.

        A node that makes a sequence stays too, for readers that are resolved later.
        """
        try:
            return self._resolve(node, names)
        except VkconvError as error:
            message = str(error)
            raise type(error)(message if str(node) in message else f"{node}: {message}") from None

    def _resolve(self, node: Node, names: Names) -> list[Node]:
        kind, inputs, output = node.op_type, node.inputs, node.outputs[0]
        if kind == "SequenceEmpty":
            self._known[output] = []
        elif kind == "SequenceConstruct":
            self._known[output] = [v for v in inputs if v is not None]
        elif kind == "SplitToSequence":
            return [*self._split(node, names), node]
        source = self._known.get(inputs[0]) if inputs and inputs[0] is not None else None
        if source is None:
            return [node]
        if kind == "Identity":
            self._known[output] = source
        elif kind == "SequenceLength":
            fact = constant(output.name, np.array(len(source), np.int64))
            output.type, output.array, output.producer = fact.type, fact.array, None
            return []
        elif kind == "ConcatFromSequence":
            return self._concat(node, source, names)
        elif kind in ("SequenceAt", "SequenceErase", "SequenceInsert"):
            return self._at_position(node, source)
        return [node]

    def _at_position(self, node: Node, source: list[Value]) -> list[Node]:
        insert = node.op_type == "SequenceInsert"
        index = 2 if insert else 1
        given = node.inputs[index] if len(node.inputs) > index else None
        if given is not None and given.array is None:
            return [node]
        length = len(source)
        default = length if insert else length - 1
        position = default if given is None or given.array is None else _single(given.array)
        if not -length <= position < length + insert:
            raise InvalidModelError(f"position {position} in a sequence of {length}")
        position += length if position < 0 else 0
        if node.op_type == "SequenceAt":
            return [_node(node, "Identity", node.name, [source[position]], node.outputs)]
        tensor = node.inputs[1] if insert else None
        if length >= LONGEST:
            raise InvalidModelError(f"a sequence of more than {LONGEST} tensors")
        between = [tensor] if tensor is not None else []
        rest = source[position if insert else position + 1 :]
        self._known[node.outputs[0]] = [*source[:position], *between, *rest]
        return [node]

    def _concat(self, node: Node, source: list[Value], names: Names) -> list[Node]:
        op = create(node)
        assert isinstance(op, ConcatFromSequence)
        if not source:
            raise InvalidModelError("the sequence is empty")
        parts, made = source, []
        if op.new_axis:
            parts = [Value(names.free(f"{node.name}/part")) for _ in source]
            for tensor, part in zip(source, parts, strict=True):
                made.append(_along(node, "Unsqueeze", tensor, part, op.axis, names))
        joined = _node(node, "Concat", node.name, list(parts), node.outputs, axis=op.axis)
        return [*made, joined]

    def _split(self, node: Node, names: Names) -> list[Node]:
        """The nodes that compute the parts; none while their sizes are not known."""
        op, x = create(node), node.inputs[0]
        assert isinstance(op, SplitToSequence)
        if x is None or x.type is None or not x.type.is_static:
            return []
        axis = normalise_axis(op.axis, len(x.dims))
        split = node.inputs[1] if len(node.inputs) > 1 else None
        sizes = op.sizes(x.dims[axis], split)
        if sizes is None:
            return []
        if len(sizes) > LONGEST:
            raise InvalidModelError(f"a sequence of more than {LONGEST} tensors")
        parts = [Value(names.free(f"{node.name}/part")) for _ in sizes]
        self._known[node.outputs[0]] = parts
        if not parts:
            return []
        given: dict[str, Any] = {"axis": axis}
        inputs: list[Value | None] = [x]
        if node.opset >= 13:
            inputs.append(constant(names.free(f"{node.name}/sizes"), _int64(sizes)))
        else:
            given["split"] = tuple(sizes)
        made = [_node(node, "Split", names.free(f"{node.name}/Split"), inputs, parts, **given)]
        if split is None and not op.keepdims:
            squeezed = [Value(names.free(f"{node.name}/part")) for _ in parts]
            made += [
                _along(node, "Squeeze", part, whole, axis, names)
                for part, whole in zip(parts, squeezed, strict=True)
            ]
            self._known[node.outputs[0]] = squeezed
        return made


def _along(node: Node, op_type: str, x: Value, y: Value, axis: int, names: Names) -> Node:
    """Squeeze or Unsqueeze of one axis, in the form that the node's opset has."""
    name = names.free(f"{node.name}/{op_type}")
    if node.opset < 13:
        return _node(node, op_type, name, [x], [y], axes=(axis,))
    axes = constant(names.free(f"{node.name}/axes"), _int64([axis]))
    return _node(node, op_type, name, [x, axes], [y])


def _node(
    node: Node, op_type: str, name: str, inputs: list[Any], outputs: list[Value], **given: Any
) -> Node:
    """A node at the opset of ``node``."""
    return Node(op_type, inputs, outputs, given, name, "", node.opset)


def _single(position: Array) -> int:
    if position.size != 1:
        raise InvalidModelError(f"its position has shape {position.shape}, not a scalar's")
    if position.dtype.kind not in "iu":
        raise InvalidModelError(f"its position is {position.dtype}, no integer")
    return int(position.reshape(()))


def _int64(values: Any) -> Array:
    return np.array(list(values), np.int64)
