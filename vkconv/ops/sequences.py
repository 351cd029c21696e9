"""Operators of sequences of tensors: lists that exist while a model is planned, and only then.

``passes.resolve_sequences`` follows them and leaves nodes of tensors behind. Where it cannot (a
position that the model computes, a sequence that enters or leaves the model) there is nothing that
would run them, which ``infer`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Value
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import ceil_div, known_ints

#: a sequence may not be longer: each of its tensors is a value of the graph
LONGEST = 4096


class OfSequences(Operator):
    """What reads or makes a sequence."""

    def unresolved(self) -> NoReturn:
        raise UnsupportedModelError(
            "it works on a sequence of tensors that only the run knows, which is not supported; "
            "export the model with fixed sizes"
        )


@operator("SequenceEmpty", since=(11,))
class SequenceEmpty(OfSequences):
    """[]."""

    dtype: int | None = None

    def infer(self) -> NoReturn:
        self.unresolved()


@operator("SequenceConstruct", since=(11,))
class SequenceConstruct(OfSequences):
    """[x0, x1, ...]."""

    def infer(self, *inputs: Value) -> NoReturn:
        self.unresolved()


@operator("SequenceInsert", since=(11,))
class SequenceInsert(OfSequences):
    """The sequence with the tensor before ``position``; without one, behind all others."""

    def infer(self, sequence: Value, tensor: Value, position: Value | None = None) -> NoReturn:
        self.unresolved()


@operator("SequenceErase", since=(11,))
class SequenceErase(OfSequences):
    """The sequence without the tensor at ``position``; without one, without the last."""

    def infer(self, sequence: Value, position: Value | None = None) -> NoReturn:
        self.unresolved()


@operator("SequenceAt", since=(11,))
class SequenceAt(OfSequences):
    """sequence[position]."""

    def infer(self, sequence: Value, position: Value) -> NoReturn:
        self.unresolved()


@operator("SequenceLength", since=(11,))
class SequenceLength(OfSequences):
    """How many tensors the sequence has."""

    def infer(self, sequence: Value) -> NoReturn:
        self.unresolved()


@operator("ConcatFromSequence", since=(11,))
class ConcatFromSequence(OfSequences):
    """All tensors along ``axis``: joined, or stacked along a new one."""

    axis: int
    new_axis: int = 0

    def infer(self, sequence: Value) -> NoReturn:
        self.unresolved()


@operator("SplitToSequence", since=(11, 24))
class SplitToSequence(OfSequences):
    """Parts of x along ``axis``: of the sizes in ``split``, each of size ``split`` where that is a
    scalar (the last may be smaller), or each of size one, without the axis unless ``keepdims``."""

    axis: int = 0
    keepdims: int = 1

    def infer(self, x: Value, split: Value | None = None) -> NoReturn:
        known_ints(split, "the sizes of the parts")
        self.unresolved()

    def sizes(self, length: int, split: Value | None) -> Sequence[int] | None:
        """The sizes of the parts; None where the model computes them."""
        if split is None:
            return [1] * _checked_count(length)
        if split.array is None:
            return None
        if split.array.dtype.kind not in "iu":
            raise InvalidModelError(f"the sizes of the parts are {split.array.dtype}, no integers")
        if split.array.ndim:
            sizes = [int(s) for s in split.array.reshape(-1)]
            if sum(sizes) != length or min(sizes, default=0) < 0:
                raise InvalidModelError(f"sizes {sizes} do not add up to {length}")
            return sizes
        size = int(split.array)
        if size < 1:
            raise InvalidModelError(f"parts of size {size}")
        _checked_count(ceil_div(length, size))
        return [min(size, length - start) for start in range(0, length, size)]


def _checked_count(parts: int) -> int:
    """Raises InvalidModelError where a sequence would have more tensors than LONGEST."""
    if parts > LONGEST:
        raise InvalidModelError(f"a sequence of {parts} tensors, more than {LONGEST}")
    return parts
