"""An array of the device against the expected one: NMSE, and the worst element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vkconv.ir import Array, type_of
from vkconv.verification.tolerance import Tolerance, tolerance

__all__ = ["Difference", "compare"]

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Difference:
    """How one array differs from the expected one.

    nmse: mean squared difference over mean square (integers: the share of elements that differ).
    index, got, wanted: the worst element, the one that exceeds its allowance by the largest
    factor. wrong: how many of ``size`` elements exceed theirs. problem: what is wrong besides
    numbers, in words (shape, dtype).
    """

    value: str
    nmse: float
    allowed: Tolerance
    index: tuple[int, ...] = ()
    got: float | str = 0.0
    wanted: float | str = 0.0
    wrong: int = 0
    size: int = 0
    problem: str = ""

    @property
    def holds(self) -> bool:
        return not self.problem and not self.wrong and self.nmse <= self.allowed.nmse

    @property
    def worst(self) -> str:
        """The worst element in words."""
        if self.problem:
            return self.problem
        place = ",".join(map(str, self.index))
        return f"[{place}] is {_text(self.got)}, expected {_text(self.wanted)}"


def compare(value: str, actual: Array, expected: Array, reduction: int = 1) -> Difference:
    """The same NaNs and infinities, the other elements within ``tolerance``. ``reduction``: how
    many terms are summed into one element."""
    made, wanted = type_of(actual), type_of(expected)
    allowed = tolerance(wanted.dtype, reduction)
    if made != wanted:
        problem = f"it is {made}, expected {wanted}"
        return Difference(value, np.inf, allowed, size=expected.size, problem=problem)
    if not expected.size:
        return Difference(value, 0.0, allowed)
    if expected.dtype.kind != "f":
        return _exact(value, actual, expected, allowed)
    with np.errstate(all="ignore"):
        special = ~np.isfinite(expected) | ~np.isfinite(actual)
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        a = np.where(special, 0, actual).astype(np.float64)
        e = np.where(special, 0, expected).astype(np.float64)
        error = np.abs(a - e)
        power = float(np.mean(e * e))
        guard = allowed.relative * np.abs(e) + allowed.scaled * np.sqrt(power) + _SMALLEST
        excess = np.where(special, np.where(same, 0.0, np.inf), error / guard)
        nmse = float(np.mean(error * error)) / max(power, _SMALLEST)
    if bool((special & ~same).any()):
        nmse = np.inf
    return _difference(value, nmse, allowed, excess, actual, expected)


def _exact(value: str, actual: Array, expected: Array, allowed: Tolerance) -> Difference:
    unlike = np.asarray(actual != expected)
    excess = np.where(unlike, np.inf, 0.0)
    return _difference(value, float(np.mean(unlike)), allowed, excess, actual, expected)


def _difference(
    value: str, nmse: float, allowed: Tolerance, excess: Array, actual: Array, expected: Array
) -> Difference:
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), excess.shape))
    got, wanted = (_scalar(array[index]) for array in (actual, expected))
    wrong = int(np.count_nonzero(excess > 1.0))
    return Difference(value, nmse, allowed, index, got, wanted, wrong, excess.size)


def _scalar(element: object) -> float | str:
    if isinstance(element, str | bytes):
        return str(element)
    return float(np.asarray(element))


def _text(element: float | str) -> str:
    return repr(element) if isinstance(element, str) else f"{element:.9g}"
