"""Which module's output is which module's input: read off the code, or off one real call.

A name such as ``bn1`` beside ``conv1`` proves nothing: in a pre-activation block the norm comes
first. So each module's ``forward`` is traced with its children as opaque steps (torch.fx). Where it
branches on values, the calls of a run on example inputs are recorded instead.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["CallOrder", "Slot", "call_arguments", "call_order"]

Slot = tuple[str, str]
"""A module's place: the path of its owner, and its name there. A shared module has several."""


@dataclass
class CallOrder:
    """What is known about the calls in a module.

    following  slot -> the slot that alone takes its output, as its first argument
    calls      how often a slot is called, over all forwards seen
    unseen     paths whose forward could not be followed, with the reason
    """

    following: dict[Slot, Slot] = field(default_factory=dict)
    calls: Counter[Slot] = field(default_factory=Counter)
    unseen: dict[str, str] = field(default_factory=dict)

    def chain(self, slot: Slot) -> Iterator[Slot]:
        """The slots after ``slot``, each fed by the one before and nothing else."""
        seen = {slot}
        while (slot := self.following.get(slot, slot)) not in seen:
            seen.add(slot)
            yield slot


class _OpaqueChildren(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: of one tensor, a sequence, or a mapping by name."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def call_order(module: nn.Module, example_inputs: Any = None) -> CallOrder:
    """The order of calls in every submodule; ``module`` itself is left as it is.

    ``example_inputs`` (see :func:`call_arguments`) are run only where a forward cannot be traced.
    """
    order = CallOrder()
    # A forward may store what it computes, and a tracer's stand-ins must not stay behind. The
    # copy shares the numbers.
    tensors = [*module.parameters(), *module.buffers()]
    stage = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    paths = {id(part): path for path, part in stage.named_modules()}
    for path, part in stage.named_modules():
        if not _has_own_forward(part):
            continue
        try:
            graph = _OpaqueChildren().trace(part, _defaults(part))
        except Exception as error:
            order.unseen[path] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        _read_graph(graph, part, paths, order)
    if example_inputs is not None and order.unseen:
        _read_run(stage, paths, example_inputs, order)
    return order


def _has_own_forward(part: nn.Module) -> bool:
    """Whether the module calls children of its own."""
    is_plain_list = isinstance(part, nn.ModuleList | nn.ModuleDict)
    return any(True for _ in part.children()) and not is_plain_list


def _defaults(part: nn.Module) -> dict[str, Any]:
    """Arguments of ``forward`` that stay at their defaults; they often choose a path."""
    parameters = inspect.signature(part.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _slot(root: nn.Module, target: str, paths: Mapping[int, str]) -> Slot:
    """Where the module called ``target`` from ``root`` lies, by its owner's first path."""
    owner, _, name = target.rpartition(".")
    return paths[id(root.get_submodule(owner))], name


def _read_graph(
    graph: fx.Graph, root: nn.Module, paths: Mapping[int, str], order: CallOrder
) -> None:
    for node in graph.nodes:
        if node.op == "get_attr":
            # a child's weight read from outside: as good as another call of that child
            owner, _, _ = str(node.target).rpartition(".")
            if owner:
                order.calls[_slot(root, owner, paths)] += 1
        if node.op != "call_module":
            continue
        slot = _slot(root, str(node.target), paths)
        order.calls[slot] += 1
        users = list(node.users)
        if len(users) == 1 and users[0].op == "call_module" and users[0].args[:1] == (node,):
            order.following[slot] = _slot(root, str(users[0].target), paths)


_LOOKS_AT_NO_VALUE = {
    "shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad",
    "dim", "size", "numel", "stride", "is_contiguous", "ndimension", "get_device",
}  # fmt: skip


class _Uses(TorchFunctionMode):
    """Counts how often each watched tensor is an argument of a function."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[int, torch.Tensor] = {}
        self.count: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # a property arrives as the __get__ of its descriptor
        named = func.__self__ if getattr(func, "__name__", "") == "__get__" else func
        if getattr(named, "__name__", "") not in _LOOKS_AT_NO_VALUE:
            for value in tree_leaves((args, kwargs or {})):
                if id(value) in self.watched:
                    self.count[id(value)] += 1
        return func(*args, **(kwargs or {}))


def _called_parts(holder: nn.Module) -> Iterator[tuple[tuple[nn.Module, str], nn.Module]]:
    """The modules a forward calls as its own, with who holds them: children, and lists of them."""
    for name, part in holder.named_children():
        if isinstance(part, nn.ModuleList):
            yield from _called_parts(part)
        else:
            yield (holder, name), part


@torch.no_grad()
def _read_run(
    stage: nn.Module,
    paths: Mapping[int, str],
    example_inputs: Any,
    order: CallOrder,
) -> None:
    """Fill in what the untraced modules call, from one run."""
    slots: dict[int, list[Slot]] = defaultdict(list)
    for owner_path in order.unseen:
        for (holder, name), part in _called_parts(stage.get_submodule(owner_path)):
            slots[id(part)].append((paths[id(holder)], name))
    uses = _Uses()
    for part in stage.modules():
        if id(part) in slots:
            uses.watched.update((id(own), own) for own in part.parameters(recurse=False))
    made: dict[int, Slot] = {}
    taken: list[tuple[int, Slot]] = []

    def before(part: nn.Module, args: tuple[Any, ...]) -> None:
        if len(slots[id(part)]) == 1 and args:
            taken.append((id(args[0]), slots[id(part)][0]))

    def after(part: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        for slot in slots[id(part)]:
            order.calls[slot] += 1
            if isinstance(result, torch.Tensor) and len(slots[id(part)]) == 1:
                made[id(result)] = slot
                uses.watched[id(result)] = result

    hooks = []
    for part in stage.modules():
        if id(part) in slots:
            hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        with uses:
            args, kwargs = call_arguments(example_inputs)
            result = stage(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    for part in stage.modules():
        for slot in slots.get(id(part), ()):
            # a weight read from outside is as good as another call
            reads = [uses.count[id(own)] for own in part.parameters(recurse=False)]
            order.calls[slot] += max([0, *reads]) > order.calls[slot]
    kept = {id(value) for value in tree_leaves(result)}
    for tensor, slot in taken:
        # called with nothing else in between, and by nobody else
        if tensor in made and uses.count[tensor] == 1 and tensor not in kept:
            order.following[made[tensor]] = slot
