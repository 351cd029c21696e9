"""A border written by hand: Pad, then the same number per channel over all of its margin.

DBB's layers pad with what a normalisation makes of 0, so that the layers around the border commute.
Exporters write that as a Pad and one ScatterND per side, with Transposes between them or indices of
every element. Whatever the nodes are: they only move elements, so running them on a tensor of NaN
shows where constants go, and running them on numbered elements that all others stay in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from vkconv.ir import Array, Node, Value
from vkconv.ops.operator import as_tuple
from vkconv.ops.registry import create
from vkconv.passes.linear_map import LinearMap, moved
from vkconv.passes.linear_window import Taps, Window

#: what a border is written with, and a Pad at its beginning
MOVING = ("ScatterND", "Transpose")
#: tensors of more elements are not looked into
_LIMIT = 1 << 26


@dataclass(frozen=True)
class Border:
    """``x`` with a margin: a map whose ``outside`` is what the margin holds."""

    x: Value
    map: LinearMap
    nodes: tuple[Node, ...]


def read_border(value: Value) -> Border | None:
    """The border that ``value`` has, when it is the last of such a chain of nodes."""
    nodes = _chain(value)
    if nodes is None:
        return None
    try:
        return _border_of(value, nodes)
    except Exception:  # indices that no tensor has: running the model will say so
        return None


def _border_of(value: Value, nodes: list[Node]) -> Border | None:
    x = nodes[0].inputs[0]
    assert x is not None
    shape, wide = x.dims, value.dims
    widths = _widths(nodes[0], len(shape))
    if widths is None or len(shape) < 3 or len(shape) != len(wide) or prod(wide) > _LIMIT:
        return None
    if any(w != s + a + b for w, s, (a, b) in zip(wide, shape, widths, strict=True)):
        return None
    inside = tuple(slice(a, a + s) for s, (a, _) in zip(shape, widths, strict=True))
    margin = _run(nodes, np.full(shape, np.nan))
    written = ~np.isnan(margin)
    if written[inside].any() or written.sum() != written.size - prod(shape):
        return None
    numbered = np.arange(prod(shape), dtype=np.float64).reshape(shape)
    if not np.array_equal(_run(nodes, numbered)[inside], numbered):
        return None
    outside = np.array([margin[:, c][written[:, c]][:1] for c in range(shape[1])]).reshape(-1)
    spread = outside.reshape(1, -1, *[1] * (len(shape) - 2))
    if outside.size != shape[1] or not np.all(~written | (margin == spread)):
        return None
    taps = tuple(Taps(-a, rest=a + b) for a, b in widths[2:])
    return Border(x, moved(shape[1], Window(taps), outside), tuple(nodes))


def _chain(value: Value) -> list[Node] | None:
    """The nodes from the Pad on, all but the tensor being constants of known types."""
    nodes: list[Node] = []
    scatters = 0
    while (
        (node := value.producer) is not None
        and node.op_type in (*MOVING, "Pad")
        and not node.domain
    ):
        x = node.inputs[0]
        known = value.type is not None and value.type.is_static
        if x is None or not known or any(not v.is_constant for v in node.present_inputs[1:]):
            return None
        nodes.append(node)
        scatters += node.op_type == "ScatterND"
        value = x
        if node.op_type == "Pad":
            if not scatters or value.type is None or not value.type.is_static:
                return None
            return nodes[::-1]
    return None


def _widths(pad: Node, rank: int) -> list[tuple[int, int]] | None:
    """The margins of all axes; None when they are not all of the spatial ones, or negative."""
    if len(pad.inputs) > 3 or pad.attributes.get("mode", "constant") != "constant":
        return None
    given: Array | None = None
    if len(pad.inputs) > 1 and pad.inputs[1] is not None:
        given = pad.inputs[1].array
    elif "pads" in pad.attributes:
        given = np.asarray(pad.attributes["pads"])
    if given is None or given.size != 2 * rank or given.min() < 0:
        return None
    pads = [int(p) for p in given.reshape(-1)]
    widths = list(zip(pads[:rank], pads[rank:], strict=True))
    return widths if not any((*widths[0], *widths[1])) else None


def _run(nodes: list[Node], x: Array) -> Array:
    for node in nodes:
        others = [None if v is None else v.array for v in node.inputs[1:]]
        x = np.asarray(as_tuple(create(node).reference(x, *others))[0])
    return x
