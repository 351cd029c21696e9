"""Channel shuffles between convolutions become the order in which channels are stored.

A block of ShuffleNetV2 joins the half it kept and the half it computed, shuffles, and parts again:

    kept, computed -> Concat -> PermuteChannels (twice) -> kept', given'

In which order the channels of kept' and given' are stored is nobody's business but of the
convolutions around them, whose weights can be in any order. So the convolution that makes
``computed`` writes first what goes to one half, then what goes to the other, each padded to whole
vec4s by channels of weight zero; both halves lie in one tensor, where it writes in place:

    [ of kept | of computed ][ of computed | of kept ]
      one half                 the other half

All that moves is what was kept, once, where three copies moved everything twice. The readers take
their weights in the stored order; a depthwise convolution keeps it, and so do the next block's
halves. Who else reads one gets its channels back in order.

The identity: conv(x[order], W[:, order]) = conv(x, W), and conv(x, W[order]) = conv(x, W)[order].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vkconv.ir import Array, Graph, Node, TensorType, Value, constant
from vkconv.ops.operator import FLOATS
from vkconv.ops.shapes import ceil_div

Order = tuple[int, ...]

#: channels of a vec4
_BLOCK = 4
#: padding may add one vec4 to so many
_BLOCKS_PER_PAD = 8


@dataclass(frozen=True)
class _Stored:
    """Where a value's channels are: channel i of ``value`` is its channel ``order[i]``, or nothing
    where that is -1."""

    value: Value
    order: Order


@dataclass(frozen=True)
class _Shuffle:
    """A Concat of a value and a convolution's result, and the one or two nodes that read it."""

    concat: Node
    kept: Value
    conv: Node
    readers: tuple[Node, ...]
    #: for each reader, which of its channels are of ``kept``, and which of the convolution
    kept_orders: tuple[Order, ...]
    made_orders: tuple[Order, ...]
    #: the first channel of the Concat that is of ``kept``, and of the convolution
    first_kept: int
    first_made: int


def absorb_channel_order(graph: Graph) -> None:
    """Needs concrete shapes; runs behind the fusion of activations and residuals."""
    shuffles = _shuffles(graph)
    if shuffles:
        _Rewriting(graph, shuffles).run()


# --- which ------------------------------------------------------------------------------------


def _shuffles(graph: Graph) -> dict[int, _Shuffle]:
    """By the id of their Concat."""
    uses = graph.uses()
    order = {node: i for i, node in enumerate(graph.nodes)}
    found: dict[int, _Shuffle] = {}
    for node in graph.nodes:
        if node.op_type == "Concat" and not node.domain and len(node.inputs) == 2:
            shuffle = _shuffle(graph, node, uses, order)
            if shuffle is not None:
                found[id(node)] = shuffle
    return found


def _shuffle(
    graph: Graph, concat: Node, uses: dict[Value, list[Node]], order: dict[Node, int]
) -> _Shuffle | None:
    joined = concat.outputs[0]
    readers = tuple(uses.get(joined, []))
    if graph.is_output(joined) or not 1 <= len(readers) <= 2 or not _is_map(joined):
        return None
    if any(not _is_permutation(n) for n in readers):
        return None
    first, second = concat.inputs
    if first is None or second is None or first is second or not _joins_channels(concat):
        return None
    convs = [
        v.producer
        for v in (first, second)
        if v.producer is not None
        and _is_free(v.producer)
        and uses[v] == [concat]
        and not graph.is_output(v)
    ]
    if not convs:
        return None
    conv = max(convs, key=lambda n: order[n])
    is_first = conv.outputs[0] is first
    kept = second if is_first else first
    if kept.is_constant:
        return None
    ranges = (first.dims[1], joined.dims[1])
    made_range, kept_range = ((0, ranges[0]), ranges) if is_first else (ranges, (0, ranges[0]))
    taken = [c for reader in readers for c in reader.attributes["channels"]]
    if len(set(taken)) != len(taken) or min(taken, default=-1) < 0:
        return None
    shuffle = _Shuffle(
        concat,
        kept,
        conv,
        readers,
        tuple(_taken(reader, *kept_range) for reader in readers),
        tuple(_taken(reader, *made_range) for reader in readers),
        kept_range[0],
        made_range[0],
    )
    return shuffle if _pays(shuffle) else None


def _taken(reader: Node, first: int, end: int) -> Order:
    """Which of its channels a PermuteChannels takes from a range of its input."""
    return tuple(i for i, c in enumerate(reader.attributes["channels"]) if first <= c < end)


def _pays(shuffle: _Shuffle) -> bool:
    """Whether padding to whole vec4s makes no half much wider, and no part is empty."""
    for kept, made in zip(shuffle.kept_orders, shuffle.made_orders, strict=True):
        plain = ceil_div(len(kept) + len(made), _BLOCK)
        padded = ceil_div(len(kept), _BLOCK) + ceil_div(len(made), _BLOCK)
        if not kept or not made or padded > plain + plain // _BLOCKS_PER_PAD:
            return False
    return True


def _is_map(value: Value) -> bool:
    known = value.type is not None and value.type.is_static
    return known and 3 <= len(value.dims) <= 5 and value.dtype in FLOATS


def _is_permutation(node: Node) -> bool:
    return node.op_type == "PermuteChannels" and len(node.inputs) == 1


def _joins_channels(concat: Node) -> bool:
    return concat.attributes.get("axis", 1) in (1, 1 - len(concat.outputs[0].dims))


def _is_free(node: Node) -> bool:
    """A convolution whose output channels can be in any order, without a residual or the like."""
    return _weights_known(node) and node.attributes.get("group", 1) == 1


def _is_depthwise(node: Node) -> bool:
    x = node.inputs[0]
    if not _weights_known(node) or x is None or not _is_map(x) or not _is_map(node.outputs[0]):
        return False
    weight = node.inputs[1]
    assert weight is not None
    return bool(node.attributes.get("group", 1) == weight.dims[0] == x.dims[1])


def _weights_known(node: Node) -> bool:
    if node.op_type != "Conv" or node.domain not in ("", "vkconv") or len(node.inputs) < 2:
        return False
    weight, *more = node.inputs[1:]
    bias = more[:1]
    return (
        weight is not None
        and weight.array is not None
        and all(v is None or v.array is not None for v in bias)
        and all(v is None for v in more[1:])
    )


# --- how --------------------------------------------------------------------------------------


class _Rewriting:
    """Goes through the nodes in order, with the order in which each value is stored."""

    def __init__(self, graph: Graph, shuffles: dict[int, _Shuffle]) -> None:
        self._graph, self._shuffles = graph, shuffles
        self._stored: dict[Value, _Stored] = {}
        self._nodes: list[Node] = []
        self._back: set[Value] = set()

    def run(self) -> None:
        gone = {id(r) for shuffle in self._shuffles.values() for r in shuffle.readers}
        for node in self._graph.nodes:
            if id(node) in self._shuffles:
                self._place(self._shuffles[id(node)])
            elif id(node) not in gone:
                self._read(node)
        for value in self._graph.outputs:
            self._restore(value)
        self._graph.nodes = self._nodes

    def _read(self, node: Node) -> None:
        x = node.inputs[0] if node.inputs else None
        stored = None if x is None else self._stored.get(x)
        if stored is not None and all(v is not x for v in node.inputs[1:]):
            if _is_depthwise(node):
                self._reorder_depthwise(node, stored)
                return
            if _is_free(node):
                node.inputs[0] = stored.value
                node.inputs[1] = _in_order(node.inputs[1], stored.order, 1)
                self._nodes.append(node)
                return
        for value in node.present_inputs:
            self._restore(value)
        self._nodes.append(node)

    def _reorder_depthwise(self, node: Node, stored: _Stored) -> None:
        old, order = node.outputs[0], stored.order
        node.inputs[0] = stored.value
        node.inputs[1:] = [_in_order(v, order, 0) for v in node.inputs[1:]]
        node.attributes = {**node.attributes, "group": len(order)}
        node.outputs = [_widened(old, len(order))]
        node.outputs[0].producer = node
        self._stored[old] = _Stored(node.outputs[0], order)
        self._nodes.append(node)

    def _restore(self, value: Value) -> None:
        """The value in its own order, for whoever needs that."""
        stored = self._stored.get(value)
        if stored is None or value in self._back:
            return
        self._back.add(value)
        at = {c: i for i, c in enumerate(stored.order)}
        channels = tuple(at[c] for c in range(value.dims[1]))
        name = f"{value.name}/in_order"
        self._nodes.append(_permutation([stored.value], value, channels, name))

    def _place(self, shuffle: _Shuffle) -> None:
        """The shuffle as one tensor: the convolution writes its middle or its end, the rest is
        copied."""
        kept = self._stored.get(shuffle.kept)
        if kept is None:
            kept = _Stored(shuffle.kept, tuple(range(shuffle.kept.dims[1])))
        # channels of the Concat -> those of ``kept`` as it is stored
        where = {c + shuffle.first_kept: i for i, c in enumerate(kept.order) if c >= 0}
        copied: list[Order] = []  # for each reader, the channels of ``kept`` as it is stored
        rows: list[int] = []  # the convolution's channels in their new order
        orders: list[Order] = []  # for each reader, its channels in the order they are stored in
        for i, reader in enumerate(shuffle.readers):
            channels = reader.attributes["channels"]
            at = {where[channels[k]]: k for k in shuffle.kept_orders[i]}
            copied.append(_padded(tuple(sorted(at))))
            own = _padded(tuple(at[c] for c in sorted(at)))
            made = _padded(shuffle.made_orders[i])
            rows += [channels[k] - shuffle.first_made if k >= 0 else -1 for k in made]
            orders.append((*own, *made) if i == 0 else (*made, *own))
        conv, width = shuffle.conv, len(kept.order)
        self._reorder_rows(conv, tuple(rows))
        middle = range(width, width + len(rows))
        channels = (*copied[0], *middle, *sum(copied[1:], ()))
        whole = _widened(shuffle.concat.outputs[0], len(channels))
        inputs = [kept.value, conv.outputs[0]]
        node = _permutation(inputs, whole, channels, shuffle.readers[0].name)
        gone = (*shuffle.readers, shuffle.concat)
        node.fused = [name for n in gone for name in (n.name, *n.fused) if name != node.name]
        self._nodes.append(node)
        values = [whole]
        if len(orders) == 2:
            values = [
                _widened(reader.outputs[0], len(order))
                for reader, order in zip(shuffle.readers, orders, strict=True)
            ]
            widths = tuple(len(order) for order in orders)
            attributes = {"axis": 1, "split": widths}
            self._nodes.append(
                Node("Split", [whole], values, attributes, f"{whole.name}/parts", "", 11)
            )
        for reader, value, order in zip(shuffle.readers, values, orders, strict=True):
            self._stored[reader.outputs[0]] = _Stored(value, order)

    @staticmethod
    def _reorder_rows(conv: Node, order: Order) -> None:
        conv.inputs[1:] = [_in_order(v, order, 0) for v in conv.inputs[1:]]
        conv.outputs = [_widened(conv.outputs[0], len(order))]
        conv.outputs[0].producer = conv


def _padded(order: Order) -> Order:
    return (*order, *[-1] * (-len(order) % _BLOCK))


def _in_order(value: Value | None, order: Sequence[int], axis: int) -> Value | None:
    """A constant's slices along ``axis`` in that order, zeros for -1."""
    if value is None or value.array is None:
        return value
    shape = list(value.array.shape)
    shape[axis] = 1
    padded: Array = np.concatenate([value.array, np.zeros(shape, value.array.dtype)], axis=axis)
    return constant(f"{value.name}/in_order", np.take(padded, order, axis=axis))


def _widened(value: Value, channels: int) -> Value:
    """A value like it, of another number of channels."""
    n, _, *spatial = value.dims
    return Value(f"{value.name}/stored", TensorType(value.dtype, (n, channels, *spatial)))


def _permutation(inputs: list[Value], result: Value, channels: Order, name: str) -> Node:
    return Node("PermuteChannels", [*inputs], [result], {"channels": channels}, name, "vkconv", 1)
