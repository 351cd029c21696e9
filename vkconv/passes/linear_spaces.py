"""How many channels and axes the values around linear layers have, from their weights.

Types are not needed: a model whose sizes are open has none until it is run, and its weights say
enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vkconv.ir import Graph, Node, Value

#: operators whose result has the channels and the rank of their tensors
_KEEPING = {"BatchNormalization", "Mul", "Div", "Add", "Sub", "Sum", "Neg", "AveragePool", "Pad"}
_KEEPING |= {"Slice", "Identity", "ScatterND"}


@dataclass(frozen=True)
class Space:
    """(N, channels, spatial...) of this rank; with ``rows``: (..., channels)."""

    channels: int
    rank: int
    rows: bool = False

    @property
    def axes(self) -> int:
        """Spatial axes."""
        return 0 if self.rows else self.rank - 2

    @property
    def channel_axis(self) -> int:
        return self.rank - 1 if self.rows else 1


def find_spaces(graph: Graph) -> dict[Value, Space]:
    """The spaces of values that convolutions and matrix products read or make, and of those around
    them; values that would have two are left out."""
    found: dict[Value, Space] = {}
    torn: set[Value] = set()

    def note(value: Value | None, space: Space | None) -> None:
        if value is None or space is None or value.is_constant:
            return
        if found.setdefault(value, space) != space:
            torn.add(value)

    for node in graph.nodes:
        for value, space in _spaces_of(node):
            note(value, space)
    for nodes in (graph.nodes, graph.nodes[::-1], graph.nodes):
        for node in nodes:
            _spread(node, found, note)
    for value in torn:
        found.pop(value)
    return found


def _spaces_of(node: Node) -> list[tuple[Value | None, Space]]:
    """What the weights of a convolution or matrix product say of its input and its result."""
    if node.domain or len(node.inputs) < 2 or node.inputs[1] is None:
        return []
    x, weights = node.inputs[:2]
    if weights is None or weights.array is None:
        return []
    shape, rank = weights.array.shape, weights.array.ndim
    group = int(node.attributes.get("group", 1))
    if node.op_type in ("Conv", "ConvTranspose"):
        if rank < 3 or group < 1 or 0 in shape or shape[0] % group:
            return []
        sizes = (shape[1] * group, shape[0])
        if node.op_type == "ConvTranspose":
            sizes = sizes[::-1]
        return [(x, Space(sizes[0], rank)), (node.outputs[0], Space(sizes[1], rank))]
    if rank != 2 or node.op_type not in ("Gemm", "MatMul") or 0 in shape:
        return []
    sizes = shape[::-1] if node.attributes.get("transB", 0) else shape
    known = 2 if node.op_type == "Gemm" else _rank(x) or _rank(node.outputs[0])
    if known is None or known < 2:
        return []
    rows = known != 2
    return [(x, Space(sizes[0], known, rows)), (node.outputs[0], Space(sizes[1], known, rows))]


def _rank(value: Value | None) -> int | None:
    if value is None or value.type is None or value.type.shape is None:
        return None
    return len(value.type.shape)


def _spread(node: Node, found: dict[Value, Space], note: object) -> None:
    """From a node's tensors to its result, and back."""
    assert callable(note)
    if node.domain or not node.outputs:
        return
    tensors = [v for v in node.present_inputs if not v.is_constant]
    result = node.outputs[0]
    if node.op_type in _KEEPING:
        space = next((found[v] for v in (*tensors[:1], result) if v in found), None)
        if node.op_type in ("Add", "Sub", "Sum") and space is None:
            space = next((found[v] for v in tensors if v in found), None)
        if space is not None and (len(tensors) == 1 or node.op_type in ("Add", "Sub", "Sum")):
            for value in (*tensors, result):
                if value not in found:
                    note(value, space)
    elif node.op_type == "Concat" and result not in found:
        parts = [found.get(v) for v in node.present_inputs]
        known = [p for p in parts if p is not None]
        same = {replace(p, channels=0) for p in known}
        if known and len(known) == len(parts) and len(same) == 1:
            channels = sum(p.channels for p in known)
            note(result, replace(known[0], channels=channels))
