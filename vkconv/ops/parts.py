"""Parts of a tensor: elements of another one, taken in any regular order, each through a chain of
functions. Data, and what it means in numpy; ``assemble.py`` makes dispatches of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from vkconv.ir import Array
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import Walk

#: what ``assemble.comp`` has room for
MOST_LOOPS, MOST_STEPS, MOST_TENSORS, MOST_NUMBERS = 4, 6, 2, 6


@dataclass(frozen=True)
class Step:
    """One function of a chain: v -> f(v), or f(v, operand), or ``swapped`` f(operand, v).

    The operand of a function of two: one of the part's tensors, by position; else the number; else
    v itself. An activation's ``numbers`` are alpha and beta, or none.
    """

    function: Activation | Binary
    tensor: int | None = None
    numbers: tuple[float, ...] = ()
    swapped: bool = False


@dataclass(frozen=True)
class Part:
    """y[y_start + sum i_d y_d] = chain(x[x_start + sum i_d x_d]) for all indices i of ``walk``.

    ``inputs``: which of the node's inputs x and the chain's tensors are. ``starts`` and the strides
    of ``walk`` count elements of the dense arrays y, x and those tensors, in this order.
    """

    inputs: tuple[int, ...]
    walk: Walk
    starts: tuple[int, ...]
    steps: tuple[Step, ...] = ()

    @property
    def numbers(self) -> tuple[float, ...]:
        return tuple(n for step in self.steps for n in step.numbers)

    def spans(self) -> tuple[int, ...]:
        """Elements from the first to one past the last, of y, x and the tensors."""
        return tuple(
            1 + sum((n - 1) * s for n, s in zip(self.walk.size, strides, strict=True))
            for strides in self.walk.strides
        )

    def fits(self, sizes: tuple[int, ...]) -> bool:
        """Whether it stays within arrays of so many elements, and within the kernel's room."""
        walk, spans = self.walk, self.spans()
        if not len(self.inputs) + 1 == len(self.starts) == len(walk.strides) == len(sizes):
            return False
        return (
            all(n > 0 for n in walk.size)
            and all(s >= 0 for strides in walk.strides for s in strides)
            and all(
                start >= 0 and start + span <= size
                for start, span, size in zip(self.starts, spans, sizes, strict=True)
            )
            and len(walk.merged().size) <= MOST_LOOPS
            and len(self.steps) <= MOST_STEPS
            and len(self.inputs) <= 1 + MOST_TENSORS
            and len(self.numbers) <= MOST_NUMBERS
            and all(s.tensor is None or 0 <= s.tensor < len(self.inputs) - 1 for s in self.steps)
        )

    def write(self, y: Array, inputs: tuple[Array, ...]) -> None:
        """The part into y, dense arrays all."""
        arrays = [y, *(inputs[i] for i in self.inputs)]
        target, v, *tensors = (
            as_strided(a.reshape(-1)[start:], self.walk.size, [s * a.itemsize for s in strides])
            for a, start, strides in zip(arrays, self.starts, self.walk.strides, strict=True)
        )
        for step in self.steps:
            v = _applied(step, v, tensors)
        target[...] = v


def _applied(step: Step, v: Array, tensors: list[Array]) -> Array:
    from vkconv.ops.fused_activation import apply_activation
    from vkconv.ops.registry import REGISTRY

    if isinstance(step.function, Activation):
        alpha, beta = step.numbers or (0.0, 0.0)
        return apply_activation(step.function, v, alpha, beta)
    operand = v
    if step.tensor is not None:
        operand = tensors[step.tensor]
    elif step.numbers:
        operand = np.asarray(step.numbers[0], v.dtype)
    made = REGISTRY[("", OPERATORS[step.function])]()
    made.version = max(made.since)
    return np.asarray(made.reference(*((operand, v) if step.swapped else (v, operand))))


#: functions of two elements that a chain may have, and their operators
OPERATORS = {
    Binary.ADD: "Add",
    Binary.SUB: "Sub",
    Binary.MUL: "Mul",
    Binary.DIV: "Div",
    Binary.POW: "Pow",
    Binary.MAX: "Max",
    Binary.MIN: "Min",
    Binary.PRELU: "PRelu",
}
