"""Einsum's equations: which label each dimension of each operand has, and of the result. Pure
parsing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.errors import InvalidModelError

#: a letter, or "...0", "...1": the dimensions of an ellipsis counted from its last one
Label = str


@dataclass(frozen=True)
class Equation:
    """Labels per operand and of the result, and the size of every label.

    Ellipsis dimensions of size 1 that broadcast carry a label of their own, ending in "*", which is
    summed away.
    """

    operands: tuple[tuple[Label, ...], ...]
    result: tuple[Label, ...]
    sizes: dict[Label, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.sizes[label] for label in self.result)

    @property
    def summed(self) -> set[Label]:
        return {label for term in self.operands for label in term} - set(self.result)


def parse_equation(equation: str, shapes: Sequence[Sequence[int]]) -> Equation:
    """The equation for operands of these shapes. Raises InvalidModelError where they don't fit."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise InvalidModelError(
            f"equation '{equation}' has {len(terms)} terms for {len(shapes)} operands"
        )
    operands = [
        _labels(term, len(shape), equation) for term, shape in zip(terms, shapes, strict=True)
    ]
    sizes = _sizes(operands, shapes, equation)
    ellipsis = sorted((label for label in sizes if label.startswith("...")), key=_place)
    if arrow:
        written = right.replace("...", ".")
        result = [label for c in written for label in (ellipsis if c == "." else [c])]
        if not written.replace(".", "").isalpha() and written.replace(".", ""):
            raise InvalidModelError(f"equation '{equation}' has a result that is no row of letters")
    else:
        letters = [label for term in operands for label in term if not label.startswith("...")]
        result = ellipsis + sorted(label for label in set(letters) if letters.count(label) == 1)
    if len(set(result)) != len(result) or not set(result) <= set(sizes):
        raise InvalidModelError(
            f"equation '{equation}': the result repeats a label or has one that no term has"
        )
    for term, shape in zip(operands, shapes, strict=True):
        for d, label in enumerate(term):
            if shape[d] == 1 != sizes[label]:
                term[d] = label + "*"
                sizes[label + "*"] = 1
    return Equation(tuple(map(tuple, operands)), tuple(result), sizes)


def _place(label: Label) -> int:
    return -int(label[3:])


def _labels(term: str, rank: int, equation: str) -> list[Label]:
    before, dots, after = term.partition("...")
    if not (before + after).isalpha() and before + after:
        raise InvalidModelError(f"equation '{equation}': term '{term}' is no row of letters")
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not dots):
        raise InvalidModelError(
            f"equation '{equation}': term '{term}' does not name the {rank} dimensions that its "
            f"operand has"
        )
    return [*before, *(f"...{i}" for i in reversed(range(hidden))), *after]


def _sizes(
    operands: Sequence[Sequence[Label]], shapes: Sequence[Sequence[int]], equation: str
) -> dict[Label, int]:
    sizes: dict[Label, int] = {}
    for term, shape in zip(operands, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            known = sizes.setdefault(label, size)
            if known == size or (size == 1 and label.startswith("...")):
                continue
            if known != 1 or not label.startswith("..."):
                raise InvalidModelError(
                    f"equation '{equation}': '{label}' is {known} in one place and {size} in "
                    f"another"
                )
            sizes[label] = size
    return sizes
