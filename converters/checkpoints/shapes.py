"""Sizes of a network, read from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vkconv.errors import InvalidModelError

__all__ = ["Shapes"]


class Shapes:
    """The names and shapes of a state_dict; ``file`` is named in messages.

    architecture:  what the weights are read as, for messages.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], file: str, architecture: str) -> None:
        self._shapes = {name: tuple(value.shape) for name, value in state.items()}
        self.file = file
        self.architecture = architecture

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of a weight that has to be there; InvalidModelError where it is not."""
        if name not in self._shapes:
            raise InvalidModelError(
                f"the weights '{self.file}' lack '{name}', which every {self.architecture} has; "
                "give the weights that belong to it"
            )
        shape = self._shapes[name]
        if len(shape) != rank or 0 in shape:
            raise InvalidModelError(
                f"the weights '{self.file}': '{name}' has shape {shape}, which is none of a "
                f"{self.architecture}"
            )
        return shape

    def outputs(self, name: str) -> int:
        """Output channels of a convolution, given without ``.weight``."""
        return self.shape(f"{name}.weight", 4)[0]

    def groups(self, name: str, inputs: int) -> int:
        """Groups of a convolution of so many inputs."""
        per_group = self.shape(f"{name}.weight", 4)[1]
        if inputs % per_group:
            raise InvalidModelError(
                f"the weights '{self.file}': '{name}.weight' reads {per_group} channels, which "
                f"do not divide the {inputs} there are"
            )
        return inputs // per_group

    def count(self, prefix: str) -> int:
        """How many parts ``prefix.0``, ``prefix.1``... have weights, without a gap."""
        found = set()
        start = f"{prefix}."
        for name in self._shapes:
            if name.startswith(start):
                found.add(name[len(start) :].partition(".")[0])
        number = 0
        while str(number) in found:
            number += 1
        return number

    def need(self, prefix: str, least: int = 1, most: int = 100) -> int:
        """``count``, where there have to be some."""
        number = self.count(prefix)
        if not least <= number <= most:
            raise InvalidModelError(
                f"the weights '{self.file}' have {number} parts '{prefix}.0', '{prefix}.1'...; a "
                f"{self.architecture} has {least} to {most}"
            )
        return number
