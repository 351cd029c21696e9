"""Every error vkconv raises on purpose, as one family.

A leaf: imports nothing of the package, so that any room may raise from here.

    VkconvError
    +-- InvalidModelError        the bytes are no ONNX model, or an inconsistent one
    +-- UnsupportedModelError    a valid model that this version cannot run: ``.nodes`` says where
    +-- InvalidInputError        what the caller passed (feeds, images, options) does not fit
    +-- DeviceError              the Vulkan loader, driver or device
    |   +-- DeviceLostError
    |   +-- OutOfDeviceMemoryError   ``.requested`` bytes did not fit
    |   +-- DeviceTimeoutError
    +-- FusionError              a fused model that is not proven to do what the model does
    +-- BuildError               compiling the shaders when the package is built

A message names the node, the value or the shader concerned and the remedy. The command line prints
it as its single line, so it should read well alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "BuildError",
    "DeviceError",
    "DeviceLostError",
    "DeviceTimeoutError",
    "FusionError",
    "InvalidInputError",
    "InvalidModelError",
    "NodeProblem",
    "OutOfDeviceMemoryError",
    "UnsupportedModelError",
    "VkconvError",
]

#: characters of a message that are shown
LONGEST_MESSAGE = 3000
_SHOWN_KINDS = 6
_SHOWN_NODES = 3


class VkconvError(Exception):
    """Base of every error vkconv raises on purpose; catching it catches them all.

    Its text quotes names and numbers of untrusted files: control characters come out escaped, so
    that it is one line which cannot steer a terminal or forge a line of a log, and a text beyond
    LONGEST_MESSAGE is cut. ``args`` has it as it was.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > LONGEST_MESSAGE:
            text = f"{text[:LONGEST_MESSAGE]}… ({len(text) - LONGEST_MESSAGE} characters more)"
        return text if text.isprintable() else "".join(map(_escaped, text))


class InvalidModelError(VkconvError):
    """The model is not ONNX, is truncated, lacks its external data, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """One node that no room of this version can run, and the reason.

    ``opset`` is the version of the node's domain that the model imports; ``dtype`` is ONNX's name
    of the type concerned ("float", "int64", "" where the type is not the matter).
    """

    node: str
    op_type: str
    reason: str
    opset: int = 0
    dtype: str = ""
    domain: str = ""

    @property
    def kind(self) -> str:
        """Operator, opset and dtype, as in "Conv, opset 17, float"."""
        about = [f"{self.domain}.{self.op_type}" if self.domain else self.op_type]
        if self.opset:
            about.append(f"opset {self.opset}")
        if self.dtype:
            about.append(self.dtype)
        return ", ".join(about)

    def __str__(self) -> str:
        return f"{self.node or '(unnamed)'} [{self.kind}]: {self.reason}"


class UnsupportedModelError(VkconvError):
    """The model is valid ONNX, but some of its nodes cannot be run.

    Raised at load, with *all* such nodes in ``nodes``, so that one attempt tells the whole story.
    """

    def __init__(self, message: str, nodes: Iterable[NodeProblem] = ()) -> None:
        super().__init__(message)
        self.nodes: list[NodeProblem] = list(nodes)

    @classmethod
    def from_nodes(cls, nodes: Iterable[NodeProblem]) -> UnsupportedModelError:
        """The error for these nodes: each in ``nodes``, those alike together in the message.

        A model with one unknown operator often has a hundred nodes of it; a message that named
        each would bury the one fact that matters.
        """
        found = list(nodes)
        alike: dict[str, list[str]] = {}
        for problem in found:
            alike.setdefault(f"{problem.kind}: {problem.reason}", []).append(problem.node)
        parts = []
        for about, names in list(alike.items())[:_SHOWN_KINDS]:
            shown = ", ".join(f"'{name}'" for name in names[:_SHOWN_NODES])
            more = f" and {len(names) - _SHOWN_NODES} more" if len(names) > _SHOWN_NODES else ""
            parts.append(f"{shown}{more} [{about}]")
        if len(alike) > _SHOWN_KINDS:
            parts.append(f"and {len(alike) - _SHOWN_KINDS} more kinds")
        nodes_are = "1 node" if len(found) == 1 else f"{len(found)} nodes"
        return cls(f"{nodes_are} of the model cannot be run: {'; '.join(parts)}", found)


class InvalidInputError(VkconvError):
    """What the caller passed does not fit: a feed's name, dtype or shape, an image, an option."""


class DeviceError(VkconvError):
    """The Vulkan loader, driver or device is missing, unsuitable, or failed."""


class DeviceLostError(DeviceError):
    """The driver reports the device as lost (VK_ERROR_DEVICE_LOST); the session is closed."""


class OutOfDeviceMemoryError(DeviceError):
    """An allocation of ``requested`` bytes did not fit on the device."""

    def __init__(self, message: str, requested: int = 0) -> None:
        super().__init__(message)
        self.requested = requested


class DeviceTimeoutError(DeviceError):
    """The device did not finish within the time allowed for one submission."""


class FusionError(VkconvError):
    """The fused model's outputs differ from the model's by more than is allowed, or could not be
    compared with them."""


class BuildError(VkconvError):
    """Compiling or embedding the shaders failed while the package was being built.

    It may hold a compiler's output, of several lines.
    """

    def __str__(self) -> str:
        return Exception.__str__(self)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
