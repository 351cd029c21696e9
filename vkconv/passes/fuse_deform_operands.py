"""A deformable convolution reads its offsets and factors where one convolution wrote both.

    o = conv(x);  DeformConv(x, W, o[:, a : a + 2K], b, activation(o[:, c : c + K]))

(X. Zhu et al., "Deformable ConvNets v2", 2018, section 3.2: one convolution of 3K channels gives
both.) K taps make 2K and K channels, which seldom fill whole blocks of four: the parts would be
copied, and the factors' activation would be a step of its own. The kernel that computes the taps'
positions takes them from any channel on instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vkconv.ir import Graph, Node, Value
from vkconv.ops.operator import as_tuple
from vkconv.ops.registry import create
from vkconv.passes.patterns import activation_of, single_user

_OFFSET, _MASK = 2, 4
#: pieces of pieces are followed this far
_DEPTH = 8


@dataclass(frozen=True)
class _Channels:
    """Some channels of ``source``, and the nodes between that cut them out."""

    source: Value
    indices: tuple[int, ...]
    nodes: tuple[Node, ...] = ()


def fuse_deform_operands(graph: Graph) -> None:
    uses = graph.uses()
    passed: dict[Node, list[Node]] = {}
    for conv in graph.nodes:
        if conv.op_type == "DeformConv" and conv.domain in ("", "vkconv"):
            nodes = [*_take_offset(conv), *_take_mask(graph, conv, uses)]
            if nodes:
                conv.domain, conv.opset = "vkconv", 1
                passed[conv] = nodes
    gone = {id(n) for n in graph.keep_live()} if passed else set()
    named: set[int] = set()
    for conv, nodes in passed.items():
        for node in nodes:
            if id(node) in gone and id(node) not in named:
                named.add(id(node))
                conv.fused += [node.name, *node.fused]


def _take_offset(conv: Node) -> tuple[Node, ...]:
    """Let ``conv`` read its offsets from what they were cut out of; the nodes it passes by."""
    if "offset_channel" in conv.attributes:
        return ()
    found = _consecutive(conv.inputs[_OFFSET])
    if found is None:
        return ()
    conv.inputs[_OFFSET] = found.source
    conv.attributes["offset_channel"] = found.indices[0]
    return found.nodes


def _take_mask(graph: Graph, conv: Node, uses: dict[Value, list[Node]]) -> tuple[Node, ...]:
    mask = conv.inputs[_MASK] if len(conv.inputs) > _MASK else None
    if mask is None or mask.is_constant or "mask_channel" in conv.attributes:
        return ()
    function, before = (0, 0.0, 0.0), mask
    passed: tuple[Node, ...] = ()
    node = mask.producer
    if node is not None and not node.domain and single_user(graph, mask, uses) is conv:
        found = activation_of(node)
        if found is not None and node.inputs[0] is not None:
            function, before = (int(found[0]), *found[1:]), node.inputs[0]
            passed = (node,)
    channels = _consecutive(before)
    if channels is None:
        return ()
    conv.inputs[_MASK] = channels.source
    names = ("mask_activation", "mask_alpha", "mask_beta")
    conv.attributes |= {"mask_channel": channels.indices[0]}
    conv.attributes |= dict(zip(names, function, strict=True))
    return (*channels.nodes, *passed)


def _consecutive(value: Value | None) -> _Channels | None:
    """What ``value`` is cut out of, where it is one run of its channels."""
    if value is None:
        return None
    found = _channels(value, _DEPTH)
    if found is None or found.source is value:
        return None
    first = found.indices[0]
    run = range(first, first + len(found.indices))
    return found if found.indices == tuple(run) else None


def _channels(value: Value, depth: int) -> _Channels | None:
    """The channels of another value that ``value`` consists of; its own where nothing cut it
    out. None for a value of unknown shape, or one without channels."""
    if value.is_constant or value.type is None or not value.type.is_static:
        return None
    if value.known_type.rank < 3 or 0 in value.dims:
        return None
    node = value.producer
    own = _Channels(value, tuple(range(value.dims[1])))
    if node is None or node.domain or depth == 0:
        return own
    if node.op_type in ("Split", "Slice"):
        return _cut(node, value, depth) or own
    return (_joined(node, value, depth) or own) if node.op_type == "Concat" else own


def _cut(node: Node, value: Value, depth: int) -> _Channels | None:
    source = node.inputs[0]
    before = None if source is None else _channels(source, depth - 1)
    if before is None or source is None or not _known(node.inputs[1:]):
        return None
    if not _along_channels(node, source):
        return None
    # the operator itself says which channels: it cuts a map of one pixel that holds their numbers
    numbers = np.arange(source.dims[1]).reshape(1, -1, *[1] * (len(source.dims) - 2))
    arrays = [None if v is None else v.array for v in node.inputs[1:]]
    parts = as_tuple(create(node).reference(numbers, *arrays))
    chosen = parts[_position(node, value)].reshape(-1)
    indices = tuple(before.indices[i] for i in chosen)
    return _Channels(before.source, indices, (*before.nodes, node))


def _known(values: Sequence[Value | None]) -> bool:
    return all(v is None or v.is_constant for v in values)


def _along_channels(node: Node, source: Value) -> bool:
    """Whether ``node`` cuts along axis 1, and no other."""
    rank = len(source.dims)
    if node.op_type == "Split":
        return bool(node.attributes.get("axis", 0) % rank == 1)
    axes = node.attributes.get("axes")
    if len(node.inputs) > 3 and node.inputs[3] is not None and node.inputs[3].array is not None:
        axes = [int(a) for a in node.inputs[3].array]
    return axes is not None and [a % rank for a in axes] == [1]


def _position(node: Node, value: Value) -> int:
    return next(i for i, v in enumerate(node.outputs) if v is value)


def _joined(node: Node, value: Value, depth: int) -> _Channels | None:
    if node.attributes.get("axis", 1) % len(value.dims) != 1:
        return None
    parts = [None if v is None else _channels(v, depth - 1) for v in node.inputs]
    found = [p for p in parts if p is not None]
    if len(found) != len(parts) or any(p.source is not found[0].source for p in found):
        return None
    nodes = tuple(dict.fromkeys(n for p in found for n in p.nodes))
    return _Channels(found[0].source, tuple(i for p in found for i in p.indices), (*nodes, node))
