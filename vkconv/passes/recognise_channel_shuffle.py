"""Channel shuffles as exporters spell them: reshapes and a transpose that only reorder channels.

    (N, C, H, W) -> Reshape (N, G, C/G, H, W) -> Transpose (0, 2, 1, 3, 4) -> Reshape (N, C, H, W)
                 [-> Split, Slice or Gather of channels]

is y[n, i] = x[n, channels[i]], one PermuteChannels for each part that is read. It keeps its input's
layout, where the reshapes would force it out of C4 and back.

The spelling varies (five dimensions or three, parts by Gather along a new first dimension), so it
is not matched: the element numbers of x are put through the nodes' own ``reference``, and what
comes out says which channels they take, if that is all they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from vkconv.errors import VkconvError
from vkconv.ir import Array, Graph, Node, TensorType, Value
from vkconv.ops.operator import DEVICE_DTYPES, as_tuple
from vkconv.ops.registry import create

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
#: operators that move elements without a look at them, given constants beside their first input
_MOVES = _RESHAPES | {"Transpose", "Split", "Slice", "Gather", "Identity"}
#: nodes from a shuffle's input to what is read of it, along one path
_LONGEST = 8
#: elements of a tensor that are followed through the nodes
_MOST_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class _End:
    """A value that others read, and the channels of the source that it holds."""

    value: Value
    channels: tuple[int, ...]


def recognise_channel_shuffle(graph: Graph) -> None:
    """Needs concrete shapes; what has none yet is left alone."""
    uses = graph.uses()
    for transpose in [n for n in graph.nodes if n.op_type == "Transpose" and not n.domain]:
        reshape = _reshape_before(transpose)
        x = None if reshape is None else reshape.inputs[0]
        if reshape is None or x is None or not _may_shuffle(transpose, x):
            continue
        numbers = np.arange(x.known_type.size, dtype=np.int32).reshape(x.dims)
        moved = _moved(reshape, numbers)
        ends = None if moved is None else _ends(graph, reshape, moved, x, uses, _LONGEST)
        if ends:
            _replace(graph, x, ends)
            uses = graph.uses()


def _reshape_before(transpose: Node) -> Node | None:
    value = transpose.inputs[0]
    node = None if value is None else value.producer
    return node if node is not None and node.op_type in _RESHAPES and not node.domain else None


def _may_shuffle(transpose: Node, x: Value) -> bool:
    """Whether x is a feature map whose pixels the transpose leaves together: most transposes of
    attention are told apart without following a million elements."""
    split = transpose.inputs[0]
    assert split is not None
    if x.is_constant or not _is_feature_map(x) or split.type is None or not split.type.is_static:
        return False
    rank = len(split.dims)
    order = transpose.attributes.get("perm", tuple(reversed(range(rank))))
    if len(order) != rank or x.dtype not in DEVICE_DTYPES:
        return False
    moved = [axis for axis, source in enumerate(order) if axis != source]
    kept = prod(split.dims[moved[-1] + 1 :]) if moved else split.known_type.size
    return kept % prod(x.dims[2:]) == 0 and x.known_type.size <= _MOST_ELEMENTS


def _is_feature_map(value: Value) -> bool:
    known = value.type is not None and value.type.is_static
    return known and 3 <= len(value.dims) <= 5 and 0 not in value.dims


def _moved(node: Node, numbers: Array) -> tuple[Array, ...] | None:
    """The element numbers of each output; None where the node does more than move elements."""
    others = node.inputs[1:]
    if node.domain or node.op_type not in _MOVES:
        return None
    if any(v is not None and v.array is None for v in others):
        return None
    try:
        made = create(node).reference(numbers, *[None if v is None else v.array for v in others])
    except (VkconvError, ValueError, IndexError):
        return None
    return as_tuple(made)


def _ends(
    graph: Graph,
    node: Node,
    outputs: Sequence[Array],
    x: Value,
    uses: dict[Value, list[Node]],
    depth: int,
) -> list[_End] | None:
    """What is read of the node's outputs, as far behind it as elements are only moved; None where
    some of it is no choice of channels."""
    found: list[_End] = []
    for value, numbers in zip(node.outputs, outputs, strict=False):
        readers = uses.get(value, [])
        behind = (
            None if graph.is_output(value) else _behind(graph, readers, numbers, x, uses, depth)
        )
        if behind is not None:
            found += behind
            continue
        channels = _channels(numbers, x.dims)
        if channels is None:
            return None
        found.append(_End(value, channels))
    return found


def _behind(
    graph: Graph,
    readers: Sequence[Node],
    numbers: Array,
    x: Value,
    uses: dict[Value, list[Node]],
    depth: int,
) -> list[_End] | None:
    """What is read behind all the readers of a value, if they all only move elements."""
    found: list[_End] = []
    for reader in readers:
        moved = _moved(reader, numbers) if depth else None
        ends = None if moved is None else _ends(graph, reader, moved, x, uses, depth - 1)
        if ends is None:
            return None
        found += ends
    return found


def _channels(numbers: Array, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The channels of a tensor of ``shape`` that ``numbers``, its elements, consist of."""
    pixels = prod(shape[2:])
    batch = shape[1] * pixels
    if numbers.ndim != len(shape) or numbers.shape[2:] != shape[2:] or numbers.shape[0] != shape[0]:
        return None
    channels = numbers[0].reshape(numbers.shape[1], pixels)[:, 0] // pixels
    rows = np.arange(shape[0])[:, None, None] * batch + channels[None, :, None] * pixels
    wanted = rows + np.arange(pixels)[None, None, :]
    if not np.array_equal(numbers.reshape(wanted.shape), wanted):
        return None
    return tuple(int(c) for c in channels)


def _replace(graph: Graph, x: Value, ends: Sequence[_End]) -> None:
    """One PermuteChannels for each end, in the place of the node that made it."""
    made: dict[int, list[Node]] = {}
    for end in {e.value: e for e in ends}.values():
        old = end.value.producer
        assert old is not None
        name = old.name if len(old.outputs) == 1 else f"{old.name}/{end.value.name}"
        type_ = TensorType(x.dtype, (x.dims[0], len(end.channels), *x.dims[2:]))
        result = Value(end.value.name, type_)
        attributes = {"channels": end.channels}
        node = Node("PermuteChannels", [x], [result], attributes, name, "vkconv", 1)
        graph.replace_value(end.value, result)
        made.setdefault(id(old), []).append(node)
    graph.nodes = [new for node in graph.nodes for new in (*made.get(id(node), ()), node)]
    first = next(iter(made.values()))[0]
    gone = [name for node in graph.keep_live() for name in (node.name, *node.fused)]
    first.fused += [name for name in gone if name != first.name]
