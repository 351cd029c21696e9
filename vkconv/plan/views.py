"""Which bytes each value of the graph gets: a storage of its own, or a view of another value's.

Three kinds of sharing, all without copies: the output of a *view* operator (reshape, channel slice)
lies in its input; the input of a *placing* operator (concat) is written where it lies in the
output; the output of an element-wise operator takes the place of an operand that nothing reads any
more. A value follows at most one other.
"""

from __future__ import annotations

from collections.abc import Mapping

from vkconv.dispatch import ELEMENT_BYTES, HostSlot, Storage, View, c4_dims
from vkconv.ir import Graph, Node, Value
from vkconv.ops.operator import Operator


def dense_view(value: Value, storage: Storage) -> View:
    """The value alone in a storage."""
    dims = value.dims
    stride = 0
    if value.layout == "c4":
        _, c4, h, w = c4_dims(dims)
        stride = c4 * h * w * 4
    return View(storage, dims, value.dtype, value.layout, 0, stride)


def new_storage(value: Value) -> Storage:
    storage = Storage(0, value.name)
    storage.size = max(dense_view(value, storage).span * ELEMENT_BYTES, ELEMENT_BYTES)
    return storage


class ViewAssignment:
    """Views of all values that device steps touch, host slots of the rest."""

    def __init__(self, graph: Graph, operators: Mapping[Node, Operator]) -> None:
        self._graph = graph
        self._operators = operators
        self._uses = graph.uses()
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self._last_use = {
            value: max(self._order[node] for node in nodes) for value, nodes in self._uses.items()
        }
        #: values that the caller fills or takes: their memory is nobody else's
        self._border = {*graph.inputs, *graph.outputs}
        #: values in each storage, as far as they have a place
        self._occupants: dict[Storage, list[Value]] = {}
        self._views: dict[Value, View] = {}
        self._slots: dict[Value, HostSlot] = {}
        #: concat input -> (concat node, position); reshape source -> its reshaped output
        self._placed: dict[Value, tuple[Node, int]] = {}
        self._reshaped: dict[Value, Value] = {}
        #: where the inputs of each placing node go
        self._places: dict[Node, tuple[View | None, ...] | None] = {}
        #: what each node's ``view`` says of a dense input, asked once: one Split has thousands of
        #: outputs
        self._probes: dict[Node, tuple[View, tuple[View, ...]] | None] = {}
        #: nodes whose outputs are views: they need no step
        self.free_nodes: set[Node] = set()
        for node in graph.nodes:
            if node.host_reason is None:
                self._try_placing(node)
        for node in graph.nodes:
            self._assign_outputs(node)

    def place(self, value: Value) -> View | HostSlot:
        """Where a non-constant value lies."""
        if value not in self._views and value not in self._slots and value.producer is None:
            if self._is_host_only(value):
                self._slots[value] = HostSlot(value.name, value.dims, value.dtype)
            else:
                self._settle(value, dense_view(value, new_storage(value)))
        return self._slots[value] if value in self._slots else self.view(value)

    def view(self, value: Value) -> View:
        if value not in self._views:
            self._settle(value, self._resolve(value))
        return self._views[value]

    def _settle(self, value: Value, view: View) -> None:
        self._views[value] = view
        self._occupants.setdefault(view.storage, []).append(value)

    def _resolve(self, value: Value) -> View:
        if value in self._reshaped:
            whole = self.view(self._reshaped[value])
            return View(whole.storage, value.dims, value.dtype, "linear", whole.offset)
        if value in self._placed:
            node, position = self._placed[value]
            if node not in self._places:
                whole = self.view(node.outputs[0])
                self._places[node] = self._operators[node].place(whole, node.inputs)
            places = self._places[node]
            part = places[position] if places else None
            if part is not None:
                return part
        return dense_view(value, new_storage(value))

    def _is_host_only(self, value: Value) -> bool:
        if value.producer is not None and value.producer.host_reason is None:
            return False
        return all(node.host_reason is not None for node in self._uses.get(value, []))

    def _assign_outputs(self, node: Node) -> None:
        if node.host_reason is not None:
            for out in node.outputs:
                if self._is_host_only(out):
                    self._slots[out] = HostSlot(out.name, out.dims, out.dtype)
            return
        following = [out for out in node.outputs if self._follows(out)]
        for out in following:
            # now, not when it is read first: who asks whether another value in that storage dies
            # must see it there
            self.view(out)
        source = node.inputs[0] if node.inputs else None
        if source is None or source.is_constant:
            return
        if following:
            # written in its place already, when it is the reshape that its source follows
            if self._reshaped.get(source) in node.outputs:
                self.free_nodes.add(node)
            return
        if isinstance(self.place(source), HostSlot):
            return
        views = self._operators[node].view(self.view(source), node.outputs)
        if views is not None:
            for value, view in zip(node.outputs, views, strict=True):
                self._settle(value, view)
            self.free_nodes.add(node)
        else:
            self._try_overwriting(node)

    def _follows(self, value: Value) -> bool:
        return value in self._placed or value in self._reshaped

    # --- element-wise operators: write over an operand that dies ------------------------------

    def _try_overwriting(self, node: Node) -> None:
        result = node.outputs[0]
        for position in sorted(self._operators[node].overwrites):
            value = node.inputs[position] if position < len(node.inputs) else None
            if value is not None and not value.is_constant and self._dies(value, node):
                same = (value.dims, value.layout, value.dtype)
                if same == (result.dims, result.layout, result.dtype):
                    self._settle(result, self.view(value))
                    return

    def _dies(self, value: Value, node: Node) -> bool:
        """Whether ``node`` reads the value last, and nobody else what lies in its storage."""
        if isinstance(self.place(value), HostSlot):
            return False
        now = self._order[node]
        for other in self._occupants[self.view(value).storage]:
            last = self._last_use.get(other, -1)
            if other in self._border or last > now or (last == now and other is not value):
                return False
        return True

    # --- concat: write parts where they belong ------------------------------------------------

    def _try_placing(self, node: Node) -> None:
        whole = dense_view(node.outputs[0], Storage(0, "probe"))
        places = self._operators[node].place(whole, node.inputs)
        if places is None:
            return
        for position, (value, part) in enumerate(zip(node.inputs, places, strict=True)):
            if value is not None and part is not None and self._can_follow(value):
                source = self._reshape_source(value)
                if source is not None:
                    self._reshaped[source] = value
                elif self._is_alias(value):
                    continue
                self._placed[value] = (node, position)

    def _can_follow(self, value: Value) -> bool:
        producer = value.producer
        return (
            not value.is_constant
            and producer is not None
            and producer.host_reason is None
            and not self._follows(value)
        )

    def _probe_views(self, value: Value) -> tuple[View, tuple[View, ...]] | None:
        """What the producer's ``view`` would say of a dense input."""
        producer = value.producer
        source = producer.inputs[0] if producer is not None and producer.inputs else None
        if producer is None or source is None or source.is_constant:
            return None
        if producer not in self._probes:
            self._probes[producer] = self._probe(producer, source)
        return self._probes[producer]

    def _probe(self, producer: Node, source: Value) -> tuple[View, tuple[View, ...]] | None:
        dense = dense_view(source, Storage(0, "probe"))
        views = self._operators[producer].view(dense, producer.outputs)
        return None if views is None else (dense, views)

    def _is_alias(self, value: Value) -> bool:
        return self._probe_views(value) is not None

    def _reshape_source(self, value: Value) -> Value | None:
        """The input of the reshape that made ``value``, when it can be written in its place."""
        probe = self._probe_views(value)
        if probe is None or value.producer is None:
            return None
        dense, views = probe
        source = value.producer.inputs[0]
        whole = (
            len(views) == 1
            and views[0].layout == "linear" == dense.layout
            and views[0].span == dense.span
        )
        if not whole or source is None or not self._can_follow(source) or self._is_alias(source):
            return None
        return source
