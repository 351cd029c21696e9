"""Deformable sampling written out in small operators: where it begins and ends, and what it does.

Training code that samples by hand (pad, floor the positions, clamp them, gather four neighbours of
each, weigh and add them, lay the taps of a pixel out as a k x k patch) leaves about a hundred nodes
before a convolution of stride k. Exporters write them in different ways, so no node is matched
literally: the three tensors that enter and the one that leaves are found, and what lies between is
run on numbers, against DeformConv's definition.

J. Dai et al., "Deformable Convolutional Networks", 2017; X. Zhu et al., "Deformable ConvNets v2",
2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vkconv.ir import Array, Graph, Node, Value
from vkconv.passes.sampling_geometry import Geometry, NotSampling, margins_of, sampling_geometry

#: nodes that sampling by hand is made of; a walk backwards ends at any other
_PARTS = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Sum",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
_GATHERS = ("GatherElements", "GatherND", "Gather")
#: those that only move the elements of their first input about
_MOVES = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
#: nodes that are looked at for one convolution: exporters write about 150
_MOST_NODES = 2000


@dataclass(frozen=True, eq=False)
class Sampling:
    """The nodes that make ``patches`` (N, C, h kh, w kw) of ``x`` (N, C, H, W).

    ``offset`` (N, 2 K, h, w) holds the rows' offsets of all K = kh kw taps, then the columns';
    ``mask`` (N, K, h, w).
    """

    x: Value
    offset: Value
    mask: Value | None
    patches: Value
    nodes: tuple[Node, ...]
    geometry: Geometry

    @property
    def size(self) -> int:
        """Elements of the largest tensor inside."""
        return max(v.known_type.size for n in self.nodes for v in n.outputs)


def may_sample(conv: Node) -> bool:
    """Whether positions are rounded and elements gathered for what a convolution reads."""
    patches = conv.inputs[0]
    kinds = {n.op_type for n in _backwards(patches)} if patches is not None else set()
    return "Floor" in kinds and not kinds.isdisjoint(_GATHERS)


def find_sampling(graph: Graph, conv: Node) -> Sampling | None:
    """The sampling that a convolution of stride = kernel size reads, in a graph of known types.

    None where there is nothing like it; NotSampling where it is another kind.
    """
    patches, weight = conv.inputs[0], conv.inputs[1]
    assert patches is not None and weight is not None
    if not _is_known(patches) or len(patches.dims) != 4 or not _is_known(weight):
        return None
    kernel = (weight.dims[2], weight.dims[3])
    order = {id(n): i for i, n in enumerate(graph.nodes)}
    cone = sorted(_backwards(patches), key=lambda n: order[id(n)])
    floors = [n for n in cone if n.op_type == "Floor"]
    gathers = [n for n in cone if n.op_type in _GATHERS and not _input(n).is_constant]
    if not floors or not gathers:
        return None
    if not all(_is_known(v) for n in cone for v in (*n.present_inputs, *n.outputs)):
        raise NotSampling("the shapes inside are not known")
    rows, columns = patches.dims[2] // kernel[0], patches.dims[3] // kernel[1]
    taps, batch = kernel[0] * kernel[1], patches.dims[0]
    pad = _only([_padding_of(_input(g)) for g in gathers], "the gathers read several maps")
    x = _input(pad)
    wanted = (batch, 2 * taps, rows, columns)
    positions = [_behind(_input(f), wanted)[0] for f in floors]
    offset, grid = _without_grid(_only(positions, "Floor reads several maps of positions"))
    if len(x.dims) != 4 or x.dims[:2] != patches.dims[:2]:
        raise NotSampling(f"the map '{x.name}' of shape {x.dims} does not become the patches")
    nodes, mask = _between(patches, pad, offset, (batch, taps, rows, columns), cone)
    nodes.sort(key=lambda n: order[id(n)])
    geometry = sampling_geometry(grid, margins_of(pad), kernel, x.dims, offset)
    return Sampling(x, offset, mask, patches, tuple(nodes), geometry)


# --- finding what enters --------------------------------------------------------------


def _is_known(value: Value) -> bool:
    return value.type is not None and value.type.is_static


def _input(node: Node) -> Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _backwards(value: Value) -> Iterator[Node]:
    """Nodes that ``value`` is computed by, as long as they may be part of sampling."""
    waiting, seen = [value], {id(value)}
    count = 0
    while waiting:
        node = waiting.pop().producer
        if node is None or node.op_type not in _PARTS or node.domain:
            continue
        # of a node with several outputs each comes here; it is one node all the same
        if id(node) in seen:
            continue
        seen.add(id(node))
        count += 1
        if count > _MOST_NODES:
            return
        yield node
        for source in node.present_inputs:
            if not source.is_constant and id(source) not in seen:
                seen.add(id(source))
                waiting.append(source)


T = TypeVar("T", Value, Node)


def _only(found: list[T], why: str) -> T:
    """The one thing that a list names again and again."""
    if any(item is not found[0] for item in found):
        raise NotSampling(why)
    return found[0]


def _padding_of(value: Value) -> Node:
    """The Pad that made the map whose elements are gathered."""
    node = value.producer
    while node is not None and node.op_type in _MOVES and not node.domain:
        node = _input(node).producer
    if node is None or node.op_type != "Pad" or node.domain:
        raise NotSampling(
            "the map has no border of zeros: positions outside are clamped to its edge pixels, "
            "where DeformConv reads zeros"
        )
    return node


def _behind(
    value: Value, dims: tuple[int, ...], parts: frozenset[str] = _MOVES | {"Slice", "Split"}
) -> tuple[Value, list[Node]]:
    """The value of these dimensions that is as far behind ``value`` as moves lead, and the nodes
    in between."""
    found, nodes, passed = None, list[Node](), list[Node]()
    while True:
        if value.dims == dims:
            found, nodes = value, list(passed)
        node = value.producer
        if node is None or node.op_type not in parts or node.domain:
            break
        sources = {v for v in node.present_inputs if not v.is_constant}
        if len(sources) != 1:
            break
        passed.append(node)
        value = sources.pop()
    if found is None:
        raise NotSampling(f"'{value.name}' has shape {value.dims}, and {dims} is looked for")
    return found, nodes


def _without_grid(positions: Value) -> tuple[Value, Array]:
    """The offsets, where positions = grid + offsets, and the grid (2 K, h, w) in pixels."""
    grid = np.zeros(positions.dims[1:])
    while True:
        node = positions.producer
        if node is None or node.op_type != "Add" or node.domain:
            return positions, grid
        constants = [v.array for v in node.present_inputs if v.array is not None]
        others = [v for v in node.present_inputs if not v.is_constant]
        if len(others) != 1 or others[0].dims != positions.dims:
            return positions, grid
        added = np.broadcast_to(constants[0], positions.dims)
        if (added != added[:1]).any():
            raise NotSampling("the grid of positions differs between the images of a batch")
        grid = grid + added[0]
        positions = others[0]


def _between(
    patches: Value, pad: Node, offset: Value, mask_dims: tuple[int, ...], cone: list[Node]
) -> tuple[list[Node], Value | None]:
    """All nodes from the map and the offsets to the patches, and the mask that joins them."""
    ends = {id(_input(pad)), id(offset)}
    inside = {id(n) for n in cone}
    dependent = {id(offset), id(pad.outputs[0])}
    for node in cone:  # in the graph's order
        if any(id(v) in dependent for v in node.present_inputs):
            dependent |= {id(v) for v in node.outputs}
    found: dict[int, Node] = {}
    masks: list[Value] = []
    waiting, seen = [patches], {id(patches)}
    while waiting:
        value = waiting.pop()
        if value.producer is None or id(value.producer) not in inside:
            raise NotSampling(f"it also reads '{value.name}'")
        if id(value) in dependent:
            nodes = [value.producer]
            sources = value.producer.present_inputs
        else:
            mask, nodes = _behind(value, mask_dims, _MOVES | {"Concat", "Slice", "Split"})
            masks.append(mask)
            sources = []
        found.update((id(n), n) for n in nodes)
        for source in sources:
            if not source.is_constant and id(source) not in ends | seen:
                seen.add(id(source))
                waiting.append(source)
    return list(found.values()), _only(masks, "it has several masks") if masks else None
