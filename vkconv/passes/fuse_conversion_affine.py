"""What scales and shifts the channels of a map before it becomes C4 moves into the conversion.

    ToC4((x - mean) / std)  =  ToC4(x; factor = 1 / std, offset = -mean / std)

An exported detector often begins with the normalisation of its image, which padding keeps out of
the first convolution's weights (its zeros come behind the normalisation): two or three passes over
the largest map there is. The conversion reads and writes every element anyway.

Runs behind ``assign_layouts``, which inserts the conversions.
"""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array, Graph, Names, Node, Value, constant
from vkconv.passes.linear_nodes import read_scaling
from vkconv.passes.linear_spaces import Space
from vkconv.passes.patterns import single_user


def fuse_conversion_affine(graph: Graph) -> None:
    found = [n for n in graph.nodes if (n.domain, n.op_type) == ("vkconv", "ToC4")]
    if not found:
        return
    uses = graph.uses()
    names = Names({v.name for v in graph.values()})
    for node in found:
        if len(node.inputs) == 1 and node.inputs[0] is not None:
            _absorb(graph, node, uses, names)


def _absorb(graph: Graph, node: Node, uses: dict[Value, list[Node]], names: Names) -> None:
    value = node.inputs[0]
    assert value is not None
    channels, rank = value.dims[1], len(value.dims)
    factor, offset = np.ones(channels), np.zeros(channels)
    gone: list[Node] = []
    while (before := _scaled(graph, value, uses)) is not None:
        source, (first, then) = before
        with np.errstate(all="ignore"):
            factor, offset = factor * first, factor * then + offset
        assert value.producer is not None
        gone.append(value.producer)
        value = source
    numbers = [a.astype(np.float32) for a in (factor, offset)]
    if not gone or rank < 3 or not all(np.isfinite(a).all() for a in numbers):
        return
    node.inputs = [value]
    for what, array in zip(("factor", "offset"), numbers, strict=True):
        node.inputs.append(constant(names.free(f"{node.name}/{what}"), array))
    graph.remove(gone)
    node.fused += [name for n in gone[::-1] for name in (n.name, *n.fused)]


def _scaled(
    graph: Graph, value: Value, uses: dict[Value, list[Node]]
) -> tuple[Value, tuple[Array, Array]] | None:
    """(x, (s, t)) where ``value`` is s x + t, a number each for each channel, and nothing else
    reads it."""
    node = value.producer
    if node is None or node.host_reason is not None or single_user(graph, value, uses) is None:
        return None
    sources = [v for v in node.present_inputs if not v.is_constant]
    if len(sources) != 1 or len(node.outputs) != 1:
        return None
    (source,) = sources
    if (source.layout, source.type) != ("linear", value.type):
        return None
    scaling = read_scaling(node, source, Space(source.dims[1], len(source.dims)))
    return None if scaling is None else (source, scaling)
