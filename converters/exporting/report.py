"""What ``export`` did, and the metadata that ``vkconv-run`` reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.errors import InvalidInputError
from vkconv.fusion import Comparison, FusionReport
from vkconv.vision.head_kinds import HEAD_KINDS

__all__ = ["ExportReport", "metadata"]


@dataclass(frozen=True)
class ExportReport:
    """One export.

    exporter  "dynamo" or "legacy"
    fusion    the model's size before and after fusion, and each fusion
    notes     blocks that were left as they are, and why the first exporter did not do
    checks    the file against the module, for each output; empty when not asked for
    """

    path: str
    exporter: str
    opset: int
    fusion: FusionReport
    notes: tuple[str, ...]
    checks: tuple[Comparison, ...]

    @property
    def nodes(self) -> dict[str, int]:
        """How many nodes of each type the file holds."""
        return dict(self.fusion.after.nodes)

    def __str__(self) -> str:
        nodes = self.nodes
        kinds = ", ".join(
            f"{count} {kind}" for kind, count in sorted(nodes.items(), key=lambda item: -item[1])
        )
        lines = [
            f"{self.path}: {sum(nodes.values())} nodes ({kinds}), "
            f"{self.fusion.after.parameters:,} parameters, opset {self.opset}, {self.exporter} "
            f"exporter"
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [
            f"'{check.output}' by {check.engine}: NMSE {check.nmse:.1e} against the module, "
            f"largest difference {check.difference:.1e}"
            for check in self.checks
        ]
        return "\n".join(lines)


def metadata(
    classes: Sequence[str] | None, head: str | None, input_scale: float | None
) -> dict[str, str]:
    """The entries of a model's metadata; InvalidInputError for what no reader would take."""
    entries = {}
    if head is not None:
        if head not in HEAD_KINDS:
            raise InvalidInputError(f"head='{head}' is not one of {', '.join(HEAD_KINDS)}")
        entries["vkconv.head"] = head
    if classes is not None:
        names = [classes] if isinstance(classes, str) else list(classes)
        if isinstance(classes, str) or not names or not all(isinstance(n, str) for n in names):
            raise InvalidInputError("classes is a list of names, one for each class, in order")
        entries["vkconv.classes"] = json.dumps(names)
        # what Ultralytics' tools read
        entries["names"] = str(dict(enumerate(names)))
    if input_scale is not None:
        if not math.isfinite(input_scale) or input_scale <= 0:
            raise InvalidInputError(f"input_scale={input_scale} is not a positive number")
        entries["vkconv.input_scale"] = repr(float(input_scale))
    return entries
