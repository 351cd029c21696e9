"""What an exported model takes and gives: names, open axes, and tensors in a row.

ONNX knows tensors by name, in order. Arguments that are dicts, lists or plain numbers are flattened
(:class:`FlatModule`); a number becomes part of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from vkconv.converters.blocks.call_order import call_arguments
from vkconv.errors import InvalidInputError

__all__ = [
    "FlatModule",
    "OpenAxes",
    "Signature",
    "larger",
    "named_outputs",
    "open_axes",
    "signature",
]

OpenAxes = dict[str, dict[int, str]]
"""For each input the axes whose size stays open, with the size's name."""


@dataclass(frozen=True)
class Signature:
    """The tensors among a module's arguments, flattened, each with its name."""

    names: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]
    leaves: tuple[Any, ...]
    structure: pytree.TreeSpec

    @property
    def is_plain(self) -> bool:
        """Whether the arguments are tensors in a row and nothing else."""
        args, kwargs = pytree.tree_unflatten(list(self.leaves), self.structure)
        return not kwargs and all(isinstance(argument, torch.Tensor) for argument in args)

    def arguments(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments with these tensors in place of the example's."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, torch.Tensor) else x for x in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return tuple(args), dict(kwargs)


class FlatModule(nn.Module):
    """``module`` with tensors in a row for arguments and for results."""

    def __init__(self, module: nn.Module, taken: Signature) -> None:
        super().__init__()
        self.module, self.taken = module, taken
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        args, kwargs = self.taken.arguments(tensors)
        return tuple(_tensors(self.module(*args, **kwargs)))


def signature(
    module: nn.Module, example_inputs: Any, input_names: Sequence[str] | None = None
) -> Signature:
    """The tensors of ``example_inputs``, named by ``input_names`` or as ``forward`` calls them.

    Raises InvalidInputError where there is none, or the number of names is another.
    """
    args, kwargs = call_arguments(example_inputs)
    parameters = list(inspect.signature(module.forward).parameters.values())
    labels = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    labels += [f"input_{index}" for index in range(len(labels), len(args))]
    names = []
    for path, leaf in pytree.tree_leaves_with_path((args, kwargs)):
        if isinstance(leaf, torch.Tensor):
            first, second, *rest = (_key(step) for step in path)
            parts = [labels[second] if first == 0 else second, *rest]
            names.append("_".join(map(str, parts)))
    leaves, structure = pytree.tree_flatten((args, kwargs))
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    if not tensors:
        raise InvalidInputError(
            "example_inputs hold no tensor; give one, a tuple or a dict of some"
        )
    if input_names is not None:
        names = _checked_names(input_names, len(tensors), "input")
    return Signature(tuple(names), tensors, tuple(leaves), structure)


def named_outputs(result: Any, output_names: Sequence[str] | None) -> dict[str, torch.Tensor]:
    """The tensors a module gave: by ``output_names``, else by its dict's keys, else "output..."."""
    tensors = _tensors(result)
    if not tensors:
        raise InvalidInputError("the module gives no tensor")
    if output_names is not None:
        names = _checked_names(output_names, len(tensors), "output")
    elif len(tensors) == 1:
        names = ["output"]
    else:
        found = pytree.tree_leaves_with_path(result)
        paths = [path for path, leaf in found if isinstance(leaf, torch.Tensor)]
        names = ["_".join(str(_key(step)) for step in path) for path in paths]
        names = [f"output_{name}" if name[:1].isdigit() else name for name in names]
    return dict(zip(names, tensors, strict=True))


def open_axes(dynamic: Any, taken: Signature) -> OpenAxes:
    """``dynamic`` as ``export`` takes it, made plain.

    Raises InvalidInputError naming the input or axis that is not there.
    """
    if dynamic is None:
        return {}
    if dynamic == "batch":
        dynamic = {0: "batch"}
    if not isinstance(dynamic, Mapping):
        raise InvalidInputError(
            "dynamic is 'batch', axes such as {0: 'batch', 2: 'height', 3: 'width'}, or such axes "
            f"for each input by name; got {dynamic!r}"
        )
    if all(isinstance(key, int) for key in dynamic):
        dynamic = dict.fromkeys(taken.names, dynamic)
    axes: OpenAxes = {}
    for name, chosen in dynamic.items():
        if name not in taken.names:
            raise InvalidInputError(
                f"dynamic names the input '{name}'; there are {', '.join(taken.names)}"
            )
        rank = taken.tensors[taken.names.index(name)].dim()
        if not isinstance(chosen, Mapping):
            chosen = {axis: f"{name}_{axis}" for axis in chosen}
        for axis in chosen:
            if not isinstance(axis, int) or not 0 <= axis < rank:
                raise InvalidInputError(
                    f"dynamic names axis {axis!r} of '{name}', which has {rank} axes"
                )
        axes[name] = {axis: str(label) for axis, label in chosen.items()}
    return axes


def larger(taken: Signature, axes: OpenAxes, minimum: int = 1) -> tuple[torch.Tensor, ...]:
    """The example tensors, doubled along their open axes (those shorter than ``minimum`` only,
    where that is given): the same numbers again, which any model takes."""
    grown = []
    for name, tensor in zip(taken.names, taken.tensors, strict=True):
        for axis in axes.get(name, {}):
            if minimum == 1 or tensor.shape[axis] < minimum:
                tensor = torch.cat([tensor, tensor], dim=axis)
        grown.append(tensor)
    return tuple(grown)


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _key(step: Any) -> Any:
    """The index or name of one step of a path into nested arguments."""
    for attribute in ("idx", "key", "name"):
        if hasattr(step, attribute):
            return getattr(step, attribute)
    return str(step)


def _checked_names(names: Sequence[str], count: int, what: str) -> list[str]:
    names = [str(name) for name in names]
    if len(names) != count or len(set(names)) != count:
        raise InvalidInputError(
            f"{what}_names has {len(names)} names, {len(set(names))} of them unlike; the module "
            f"has {count} {what} tensors"
        )
    return names
