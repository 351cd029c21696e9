"""The numerical proof: a model and the fused one on the same random inputs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vkconv.capabilities import DeviceChoice
from vkconv.errors import InvalidInputError, VkconvError
from vkconv.fusion.engines import (
    Engine,
    Feeds,
    has_onnxruntime,
    run_on_device,
    run_on_onnxruntime,
    run_on_reference,
)
from vkconv.fusion.sizes import random_feeds
from vkconv.fusion.types import Shapes
from vkconv.ir import Array, Value

__all__ = ["LARGEST_NMSE", "Comparison", "Proof", "prove"]

#: mean squared difference over mean square that is allowed: by the dtype of the output
LARGEST_NMSE = {"float16": 1e-4}
_LARGEST_NMSE = 1e-6
#: up to here numpy is done in a second or two; what is larger is run by the kernels
_REFERENCE_FLOPS = 4_000_000_000
#: of the inputs; a large model runs on the first only
_SEEDS = (7, 8)

BY_NUMPY, ON_DEVICE = "vkconv (numpy)", "vkconv (device)"


@dataclass(frozen=True)
class Comparison:
    """One output on one engine, of the fused model against the model's.

    difference: the largest absolute one. nmse: mean squared difference over mean square, the
    largest of all inputs; infinite where shapes differ, or one is finite and the other is not.
    limit: what ``nmse`` may be. varies: whether the output depends on the input at all; one that
    does not shows nothing.
    """

    output: str
    engine: str
    difference: float
    nmse: float
    limit: float
    varies: bool = True

    @property
    def holds(self) -> bool:
        return self.nmse <= self.limit


@dataclass(frozen=True)
class Proof:
    """What both models made of random inputs of ``shapes``.

    failures: why an engine ran the model, but not the fused one. notes: why an engine could not be
    asked.
    """

    shapes: Shapes
    comparisons: tuple[Comparison, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Every output agreed on every engine that could be asked; one could, and not all of its
        outputs are the same whatever the input."""
        return (
            any(comparison.varies for comparison in self.comparisons)
            and not self.failures
            and all(comparison.holds for comparison in self.comparisons)
        )

    @property
    def verdict(self) -> str:
        """Whether it holds, or why not, in a few words."""
        if self.failures:
            return self.failures[0]
        if not self.comparisons:
            return "; ".join(self.notes) or "the model has no outputs to compare"
        worst = max(self.comparisons, key=lambda comparison: comparison.nmse / comparison.limit)
        if self.holds:
            return f"both models agree: NMSE {worst.nmse:.1e} at most"
        if worst.holds:
            return "the outputs are the same for all random inputs, which proves nothing"
        return (
            f"output '{worst.output}' differs on {worst.engine}: NMSE {worst.nmse:.1e}, "
            f"{worst.limit:g} is allowed"
        )


def prove(
    before: Any,
    after: Any,
    inputs: Sequence[Value],
    possible: Iterable[Shapes],
    *,
    flops: int = 0,
    device: DeviceChoice = "auto",
    free: Callable[[], object] = gc.collect,
) -> Proof:
    """Run both models (a path or bytes each) at the first of the ``possible`` shapes that works.

    inputs: of the model, with their types. flops: of one run; they decide whether numpy or the
    device is asked. free: gives memory back between runs. Engines take turns, so that no two models
    are in memory together.
    """
    proof = Proof({}, notes=("no sizes for its inputs were found",))
    for shapes in possible:
        seeds = _SEEDS if flops <= _REFERENCE_FLOPS else _SEEDS[:1]
        trial = _Trial(free)
        try:
            feeds = [random_feeds(inputs, shapes, seed) for seed in seeds]
        except InvalidInputError as error:
            proof = Proof(dict(shapes), notes=(str(error),))
            continue
        for name, engine in _engines(flops, device, trial).items():
            _try(name, engine, before, after, feeds, trial)
        proof = Proof(
            dict(shapes), tuple(trial.comparisons), tuple(trial.failures), tuple(trial.notes)
        )
        if proof.comparisons or proof.failures:
            return proof
    return proof


@dataclass
class _Trial:
    free: Callable[[], object]
    comparisons: list[Comparison] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _engines(flops: int, device: DeviceChoice, trial: _Trial) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    if device == "reference" or (device == "auto" and flops <= _REFERENCE_FLOPS):
        engines[BY_NUMPY] = run_on_reference
    else:
        engines[ON_DEVICE] = run_on_device(device)
    if has_onnxruntime():
        engines["onnxruntime"] = run_on_onnxruntime
    else:
        trial.notes.append("onnxruntime is not installed, so it was not asked")
    return engines


def _try(
    name: str, engine: Engine, before: Any, after: Any, feeds: Sequence[Feeds], trial: _Trial
) -> None:
    try:
        wanted = engine(before, feeds)
    except Exception as error:  # onnxruntime raises kinds of its own
        trial.notes.append(f"{name} cannot run the model: {_why(error)}")
        if name == ON_DEVICE:
            _try(BY_NUMPY, run_on_reference, before, after, feeds, trial)
        return
    try:
        trial.free()
        found = engine(after, feeds)
        trial.free()
    except Exception as error:
        trial.failures.append(f"{name} runs the model, but not the fused one: {_why(error)}")
        return
    for output in wanted[0]:
        rounds = zip(wanted, found, strict=True)
        pairs = [(_tensors(w[output]), _tensors(f.get(output))) for w, f in rounds]
        if any(len(one) != len(other) for one, other in pairs):
            trial.failures.append(f"{name}: output '{output}' has another number of tensors")
            continue
        counts = {len(one) for one, _ in pairs}
        for index in range(min(counts)):
            label = output if not isinstance(wanted[0][output], list) else f"{output}[{index}]"
            of_rounds = [(one[index], other[index]) for one, other in pairs]
            trial.comparisons.append(compare(label, name, of_rounds))


def compare(output: str, engine: str, rounds: list[tuple[Array, Array]]) -> Comparison:
    """An output of the model against the fused one's, for each of the inputs."""
    differences = [_difference(expected, found) for expected, found in rounds]
    expected = [one for one, _ in rounds]
    first = expected[0]
    limit = LARGEST_NMSE.get(first.dtype.name, _LARGEST_NMSE)
    same = all(_difference(first, other)[0] == 0 for other in expected[1:])
    return Comparison(
        output,
        engine,
        max(largest for largest, _ in differences),
        max(nmse for _, nmse in differences),
        limit,
        not (same and len(expected) > 1),
    )


def _difference(expected: Array, found: Array) -> tuple[float, float]:
    """(largest absolute difference, NMSE); what is NaN, or the same infinity, in both is equal."""
    unlike = (np.inf, np.inf)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return unlike
    if expected.dtype.kind not in "fiub":
        return (0.0, 0.0) if np.array_equal(found, expected) else unlike
    one, other = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(one) & np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return unlike
    one, other = one[finite], other[finite]
    if not one.size:
        return 0.0, 0.0
    error = one - other
    power, wrong = float(np.mean(other * other)), float(np.mean(error * error))
    nmse = wrong / power if power else (np.inf if wrong else 0.0)
    return float(np.abs(error).max()), nmse


def _tensors(value: Any) -> list[Array]:
    """The tensors of an output: one, or those of a sequence."""
    if value is None:
        return []
    return [np.asarray(part) for part in (value if isinstance(value, list) else [value])]


def _why(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, VkconvError):
        text = text.rpartition(" : ")[2]
    return text if len(text) <= 200 else text[:199] + "…"
