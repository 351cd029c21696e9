"""Maxima over nested windows of one tensor become a chain of small ones (spatial pyramid pooling).

    max over 9x9 of x = max over 5x5 of (max over 5x5 of x), and so on for 13x13

exactly, at stride 1 where every map keeps its size: the windows of the second cover the first's
without a gap, and at the border both are cut to what is inside. The windows of a chain are what
each adds to the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from vkconv.errors import VkconvError
from vkconv.ir import Graph, Node, Value
from vkconv.ops.max_pool import MaxPool
from vkconv.ops.operator import FLOATS
from vkconv.ops.registry import create
from vkconv.ops.window import Axis

#: windows (size, padding before) per spatial axis
Window = tuple[tuple[int, int], ...]


def chain_max_pools(graph: Graph) -> None:
    """Each maximum reads the next smaller one of the same tensor where that leaves fewer taps."""
    found: dict[Value, list[tuple[Node, Window]]] = {}
    for node in graph.nodes:
        window = _window(node)
        source = node.inputs[0] if window is not None else None
        if window is not None and source is not None:
            found.setdefault(source, []).append((node, window))
    together: dict[Node, list[Node]] = {}
    for pools in found.values():
        earliest = pools[0][0]
        # larger windows last; of equal ones, the model's order
        pools.sort(key=lambda p: tuple(size for size, _ in p[1]))
        for (inner, small), (outer, large) in pairwise(pools):
            added = _difference(small, large)
            if added is None:
                continue
            outer.inputs = [inner.outputs[0]]
            begins = tuple(begin for _, begin in added)
            ends = tuple(size - 1 - begin for size, begin in added)
            outer.attributes = {
                "kernel_shape": tuple(size for size, _ in added),
                "strides": (1,) * len(added),
                "pads": begins + ends,
            }
            together[earliest] = [node for node, _ in pools]
    _gather(graph, together)


def _window(node: Node) -> Window | None:
    """The windows of a plain maximum at stride 1 that keeps the size of its maps; else None."""
    if node.op_type != "MaxPool" or node.domain or len(node.outputs) != 1:
        return None
    x = node.inputs[0]
    if x is None or x.type is None or not x.type.is_static or x.dtype not in FLOATS:
        return None
    try:
        op = create(node)
        assert isinstance(op, MaxPool)
        axes: Sequence[Axis] = op.window.axes(x.dims)
    except VkconvError:
        return None  # the model is wrong there, which type inference says better
    kept = all(a.stride == a.dilation == 1 and a.out == a.size and a.begin >= 0 for a in axes)
    kept = kept and all(a.begin <= a.kernel - 1 for a in axes)
    return tuple((a.kernel, a.begin) for a in axes) if kept else None


def _difference(small: Window, large: Window) -> Window | None:
    """The window that makes ``large`` of ``small``, where it has fewer taps than ``large``."""
    added = tuple(
        (size - inner + 1, begin - before)
        for (inner, before), (size, begin) in zip(small, large, strict=True)
    )
    if any(not 0 <= begin < size for size, begin in added) or added == large:
        return None
    return added if any(size > 1 for size, _ in added) else None


def _gather(graph: Graph, together: Mapping[Node, Sequence[Node]]) -> None:
    """Pools of one tensor to the place of the earliest of them: a chain may run against the
    model's order, and all that they read is there."""
    moved = {node for pools in together.values() for node in pools}
    graph.nodes = [
        new for node in graph.nodes for new in together.get(node, () if node in moved else (node,))
    ]
