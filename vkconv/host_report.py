"""What a session says of nodes that run on the host: one warning for each node, or a refusal."""

from __future__ import annotations

import os
import sys
import warnings

from vkconv.errors import NodeProblem, UnsupportedModelError
from vkconv.planned import HostNodes

_PACKAGE = os.path.dirname(__file__) + os.sep


class HostReport:
    """Hears of the nodes of every plan that run on the host. ``strict`` refuses them."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._warned: set[str] = set()
        #: a device that runs everything there says nothing
        self.expected = False

    def __call__(self, nodes: HostNodes) -> None:
        if self.expected or not nodes:
            return
        if self._strict:
            listed = "; ".join(f"{node}: {reason}" for node, reason in nodes)
            raise UnsupportedModelError(
                f"strict=True, and these nodes would run on the host: {listed}",
                [NodeProblem(n.name, n.op_type, why, n.opset, "", n.domain) for n, why in nodes],
            )
        new = [(node, reason) for node, reason in nodes if node.name not in self._warned]
        if not new:
            return
        self._warned.update(node.name for node, _ in new)
        listed = "; ".join(f"{node}: {reason}" for node, reason in new)
        level = _level_of_caller()
        warnings.warn(f"nodes that run on the host: {listed}", RuntimeWarning, stacklevel=level)


def _level_of_caller() -> int:
    """The ``stacklevel`` of whoever called InferenceSession() or run(), from any depth: a plan is
    made at loading, in a run, or behind a node whose output size depends on data."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
