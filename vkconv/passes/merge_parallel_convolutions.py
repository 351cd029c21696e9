"""Convolutions side by side become one, whose output channels are theirs one behind the other.

    a = f(conv(x, A)), b = f(conv(x, B))  ->  a, b = Split(f(conv(x, [A; B])))

The entries of ELAN and CSP blocks, SPPCSPC's two, a detector's towers. Each output keeps its own
sum, so the numbers are those of before; x is read, and for Winograd transformed, once, and there is
one dispatch where there were several.

The parts are views of the result where they are whole vec4s of channels. Where some of them belong
to a Concat, the result has to lie in it: the parts take the order they have there, and those that
do not belong lie before or behind what the Concat gives, which becomes a view, too:

    c = Concat(main, b)  ->  z = Concat(main, [b; a]),  c, a = views of z

Convolutions that no order spares a copy are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vkconv.ir import Array, Graph, Node, TensorType, Value, constant
from vkconv.stored_arrays import concatenated

Uses = dict[Value, list[Node]]


@dataclass
class _Arrangement:
    """The convolutions in the order of their channels in one result.

    ``concat``: the node that reads some of them, its inputs ``first`` to ``last`` (excluded); it
    gives ``width`` channels. The others have ``outside`` before (``before``) or behind these.
    """

    convs: list[Node]
    concat: Node | None = None
    first: int = 0
    last: int = 0
    width: int = 0
    outside: int = 0
    before: bool = False


@dataclass
class _Weights:
    """Weights joined once, however often the model uses them (a head at several scales)."""

    made: dict[tuple[int | None, ...], Value] = field(default_factory=dict)

    def join(self, convs: Sequence[Node], position: int) -> Value | None:
        parts = [_input(conv, position) for conv in convs]
        key = tuple(None if v is None else id(v.array) for v in parts)
        if all(part is None for part in parts):
            return None
        if key not in self.made:
            arrays = [_array(conv, position) for conv in convs]
            name = next(v.name for v in parts if v is not None)
            self.made[key] = constant(f"{name}/joined", concatenated(arrays))
        return self.made[key]


def merge_parallel_convolutions(graph: Graph) -> None:
    """Runs behind the fusions of activations and residuals, which see one convolution each."""
    weights = _Weights()
    for siblings in _siblings(graph):
        uses = graph.uses()
        free = [c for c in siblings if not _concats(c, uses)]
        for convs in (siblings, free):
            found = _arrange(graph, convs, uses) if len(convs) > 1 else None
            if found is not None:
                _merge(graph, found, weights)
                break


# --- which ------------------------------------------------------------------------------------


def _siblings(graph: Graph) -> list[list[Node]]:
    """Convolutions of one tensor that differ in nothing but their weights."""
    uses = graph.uses()
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in graph.nodes:
        if _may_merge(node, graph, uses):
            attributes = tuple(sorted((k, repr(v)) for k, v in node.attributes.items()))
            weight = _array(node, 1)
            kernel = (weight.shape[1:], weight.dtype.str)
            key = (id(node.inputs[0]), node.domain, node.opset, kernel, attributes)
            groups.setdefault(key, []).append(node)
    return [group for group in groups.values() if len(group) > 1]


def _may_merge(node: Node, graph: Graph, uses: Uses) -> bool:
    """A convolution of a computed tensor with constant weights, and of no groups. An addition
    behind it may still become its residual where types are not yet known."""
    if node.op_type != "Conv" or node.domain not in ("", "vkconv"):
        return False
    x, *constants = node.inputs
    if x is None or x.is_constant or node.attributes.get("group", 1) != 1:
        return False
    if any(v is not None for v in constants[2:]):
        return False
    if not all(v is None or v.array is not None for v in constants) or constants[0] is None:
        return False
    result = node.outputs[0]
    settled = result.type is not None and result.type.is_static
    return settled or not any(n.op_type == "Add" for n in uses.get(result, []))


def _arrange(graph: Graph, convs: Sequence[Node], uses: Uses) -> _Arrangement | None:
    """An order of the convolutions whose parts are views; None where there is none."""
    inside = [c for c in convs if _concats(c, uses)]
    # what need not end with a whole vec4 comes last
    outside = sorted((c for c in convs if c not in inside), key=lambda c: _channels(c) % 4 != 0)
    found = _Arrangement(outside) if not inside else _around(graph, inside, outside, uses)
    if found is None or any(_channels(c) % 4 for c in found.convs[:-1]):
        return None
    return found


def _around(
    graph: Graph, inside: Sequence[Node], outside: list[Node], uses: Uses
) -> _Arrangement | None:
    """As ``_arrange`` where ``inside`` are read by Concats: it must be one, in which they follow
    each other, and they must begin or end it when there are others."""
    readers = [node for conv in inside for node in _concats(conv, uses)]
    concat = readers[0]
    if len(readers) != len(inside) or any(node is not concat for node in readers):
        return None
    places = {id(v): i for i, v in enumerate(concat.inputs)}
    order = sorted(inside, key=lambda c: places[id(c.outputs[0])])
    first = places[id(order[0].outputs[0])]
    last = first + len(order)
    widths = [_known_channels(v) for v in concat.inputs]
    if [places[id(c.outputs[0])] for c in order] != list(range(first, last)) or None in widths:
        return None
    known = [w for w in widths if w is not None]
    if not _joins_channels(concat) or sum(known[:first]) % 4:
        return None
    if not outside:
        return _Arrangement(order, concat, first, last)
    if any(n.op_type == "Concat" for n in uses.get(concat.outputs[0], [])):
        return None  # what is a view of a wider tensor is copied into the next
    width, more = sum(known), sum(map(_channels, outside))
    if last == len(widths) and width % 4 == 0:
        return _Arrangement([*order, *outside], concat, first, last, width, more)
    if first == 0 and more % 4 == 0:
        return _Arrangement([*outside, *order], concat, first, last, width, more, before=True)
    return None


def _concats(conv: Node, uses: Uses) -> list[Node]:
    return [n for n in uses.get(conv.outputs[0], []) if n.op_type == "Concat" and not n.domain]


def _joins_channels(concat: Node) -> bool:
    axis = concat.attributes.get("axis", 1)
    type_ = concat.outputs[0].type
    rank = None if type_ is None or type_.shape is None else len(type_.shape)
    return bool(axis == 1 or (rank is not None and axis == 1 - rank))


def _known_channels(value: Value | None) -> int | None:
    """A convolution's are known before the size of its map is."""
    if value is None:
        return None
    node = value.producer
    weight = node.inputs[1] if node is not None and node.op_type == "Conv" else None
    if weight is not None and weight.array is not None:
        return int(weight.array.shape[0])
    shape = None if value.type is None else value.type.shape
    dim = shape[1] if shape is not None and len(shape) > 2 else None
    return dim if isinstance(dim, int) else None


def _channels(conv: Node) -> int:
    return int(_array(conv, 1).shape[0])


def _input(conv: Node, position: int) -> Value | None:
    return conv.inputs[position] if position < len(conv.inputs) else None


def _array(conv: Node, position: int) -> Array:
    """A constant of the convolution; zeros for a bias that it has not."""
    value = _input(conv, position)
    if value is not None and value.array is not None:
        return value.array
    weight = conv.inputs[1]
    assert weight is not None and weight.array is not None
    return np.zeros(weight.array.shape[0], weight.array.dtype)


# --- how --------------------------------------------------------------------------------------


def _merge(graph: Graph, found: _Arrangement, weights: _Weights) -> None:
    convs = found.convs
    earliest = min(convs, key=graph.nodes.index)
    inputs = [earliest.inputs[0], weights.join(convs, 1), weights.join(convs, 2)]
    if inputs[2] is None:
        inputs.pop()
    parts = [conv.outputs[0] for conv in convs]
    widths = [_channels(conv) for conv in convs]
    joined = Value(f"{earliest.outputs[0].name}/joined", _widened(parts[0], sum(widths)))
    merged = Node(
        "Conv",
        inputs,
        [joined],
        dict(earliest.attributes),
        earliest.name,
        earliest.domain,
        earliest.opset,
        [name for c in convs for name in (c.name, *c.fused) if name != earliest.name],
    )
    made = {id(earliest): [merged, _split(joined, parts, widths)]}
    gone = {id(conv) for conv in convs}
    if found.concat is not None:
        made[id(found.concat)] = _place(found, joined)
        gone.add(id(found.concat))
    graph.nodes = [
        new
        for node in graph.nodes
        for new in made.get(id(node), [] if id(node) in gone else [node])
    ]


def _place(found: _Arrangement, joined: Value) -> list[Node]:
    """The Concat with the one result among its inputs; what it gave is a view of what it gives."""
    concat = found.concat
    assert concat is not None
    concat.inputs[found.first : found.last] = [joined]
    if not found.outside:
        return [concat]
    result, width = concat.outputs[0], found.width
    whole = Value(f"{result.name}/joined", _widened(result, width + found.outside))
    rest = Value(f"{result.name}/beside", _widened(result, found.outside))
    whole.producer, concat.outputs = concat, [whole]
    if found.before:
        return [concat, _split(whole, [rest, result], [found.outside, width])]
    return [concat, _split(whole, [result, rest], [width, found.outside])]


def _split(joined: Value, parts: list[Value], widths: list[int]) -> Node:
    attributes = {"axis": 1, "split": tuple(widths)}
    return Node("Split", [joined], parts, attributes, f"{joined.name}/parts", "", 11)


def _widened(value: Value, channels: int) -> TensorType | None:
    """The value's type with another number of channels."""
    known = value.type
    if known is None or known.shape is None:
        return None
    return TensorType(known.dtype, (known.shape[0], channels, *known.shape[2:]))
