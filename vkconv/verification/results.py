"""What a verification found, and what it says in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vkconv.capabilities import DeviceInfo
from vkconv.ir import Array
from vkconv.verification.checks import NodeCheck
from vkconv.verification.comparison import Difference

__all__ = ["DISCRETE", "Verification"]

#: operators whose result jumps where an input changes by a rounding error: behind them outputs may
#: differ from end to end though every node is right
DISCRETE = frozenset(
    {
        "ArgMax", "ArgMin", "BitShift", "Cast", "CastLike", "Ceil", "DynamicQuantizeLinear",
        "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "If", "Less", "LessOrEqual",
        "Loop", "MaxPool", "Mod", "NonMaxSuppression", "NonZero", "QLinearConv", "QLinearMatMul",
        "QuantizeLinear", "RandomNormal", "RandomUniform", "Round", "RoundHalfToEven", "Sign",
        "TopK", "Unique",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Verification:
    """A model on a device against the reference.

    checks: each node on the inputs it had. replay: the outputs of a plain run, one submission,
    against those of the watched one; they have to be the same bits. end_to_end: the outputs against
    those of the model as the file has it, without any rewriting, computed by numpy.
    feeds: what the model was given. described: each of them in words. notes: what could not be
    compared, and why. kept: values of the run that were asked for. record: the part of the tuning
    record that decided kernels, as a record of its own; empty where all are chosen by rule.
    """

    device: DeviceInfo
    checks: tuple[NodeCheck, ...]
    replay: tuple[Difference, ...]
    end_to_end: tuple[Difference, ...]
    feeds: Mapping[str, Array] = field(repr=False)
    described: str = ""
    notes: tuple[str, ...] = ()
    is_discrete: bool = False
    kept: Mapping[str, Array] = field(default_factory=dict, repr=False)
    record: str = field(default="", repr=False)

    @property
    def compared(self) -> list[NodeCheck]:
        return [check for check in self.checks if check.differences]

    @property
    def tuned(self) -> list[NodeCheck]:
        """Nodes of which the tuning record decided a kernel."""
        return [check for check in self.checks if check.tuned]

    @property
    def diverging(self) -> list[NodeCheck]:
        """Nodes whose own result is wrong, in the order in which they run."""
        return [check for check in self.checks if not check.holds]

    @property
    def first(self) -> NodeCheck | None:
        """The first node whose own result is wrong."""
        return next(iter(self.diverging), None)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong, and something was compared."""
        ends = self.is_discrete or all(difference.holds for difference in self.end_to_end)
        compared = bool(self.compared or self.end_to_end)
        return compared and not self.diverging and all(d.holds for d in self.replay) and ends

    @property
    def verdict(self) -> str:
        """The result in one line."""
        first = self.first
        if first is not None:
            return _about_first(first, len(self.diverging))
        for difference in self.replay:
            if not difference.holds:
                return (
                    f"every node agrees when it is watched, but in a plain run output "
                    f"'{difference.value}' is another: {difference.worst}; the fault is in the "
                    "order of the dispatches (a barrier that is missing) or in shared memory"
                )
        wrong = next((d for d in self.end_to_end if not d.holds), None)
        if wrong is not None and not self.is_discrete:
            return (
                f"every node agrees, but output '{wrong.value}' is not the model's: NMSE "
                f"{wrong.nmse:.1e}, {wrong.allowed.nmse:g} is allowed, {wrong.worst}; the fault is "
                "in a rewriting of the graph, or rounding errors add up"
            )
        if not self.compared and not self.end_to_end:
            return "nothing could be compared"
        worst = max((d.nmse for c in self.checks for d in c.differences), default=0.0)
        ends = max((d.nmse for d in self.end_to_end), default=None)
        text = f"all {len(self.compared)} nodes agree: NMSE {worst:.1e} at most"
        if wrong is not None:
            return f"{text}; outputs differ from end to end, behind rounding or choosing operators"
        return text if ends is None else f"{text}, {ends:.1e} from end to end"


def _about_first(check: NodeCheck, count: int) -> str:
    worst = check.worst
    assert worst is not None
    kernels = ", ".join(check.kernels) or "no kernel: a view of its input"
    if check.tuned:
        kernels += f"; chosen by tuning: {', '.join(check.tuned.values())}"
    more = f"; {count - 1} more {'node differs' if count == 2 else 'nodes differ'}"
    more = more if count > 1 else ""
    if check.alone is None:
        alone = ""
    elif check.alone.holds:
        alone = "; alone it is right, so the fault is in the plan (memory or order), not the kernel"
    else:
        alone = "; alone it is wrong as well"
    if check.tuned:
        alone += "; VKCONV_DISABLE=tuning chooses kernels by rule"
    return (
        f"{check.op_type} '{check.node}' ({kernels}) is the first to differ: '{worst.value}' has "
        f"NMSE {worst.nmse:.1e}, {worst.allowed.nmse:g} is allowed; worst element {worst.worst}; "
        f"{worst.wrong} of {worst.size} are wrong{alone}{more}"
    )
