"""The protocol every device keeps: prepare a plan once, run it many times.

A device imports only the plan's data. Elements on the device take four bytes: ``to_device`` and
``from_device`` convert at the border, with a range check where an integer type is wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.dispatch import Plan, View
from vkconv.errors import InvalidInputError
from vkconv.ir import Array


@dataclass(frozen=True)
class StepTime:
    """One measured step: ``start`` and ``duration`` in seconds on the clock of its ``track``.

    ``bytes`` its kernel reads and writes; ``detail`` its variant, tile, grid. ``flops`` are those
    of the whole node, at the first of its steps. What a step does is known to the plan alone.
    """

    node: str
    kernel: str
    track: str  # "gpu" or "host"
    start: float
    duration: float
    flops: int = 0
    bytes: int = 0
    detail: str = ""


#: which outputs of a plan are wanted, by position, and the array each is to be written into (of the
#: output's shape; None: a new one)
Targets = Mapping[int, "Array | None"]


class Executable(Protocol):
    """A plan on a device."""

    @property
    def arena_bytes(self) -> int:
        """Bytes for intermediate tensors."""
        ...

    @property
    def staging_bytes(self) -> int:
        """Bytes for copies on their way to and from the device."""
        ...

    def run(self, feeds: Mapping[str, Array], targets: Targets | None = None) -> list[Array]:
        """Inputs by name, in the plan's dtypes and shapes; one array for each target, in their
        order, or for each plan output."""
        ...

    def start(self, feeds: Mapping[str, Array]) -> None:
        """The first half of ``run``: hands the work to the device. The same thread calls
        ``finish`` next; until then others wait."""
        ...

    def finish(self, targets: Targets | None = None) -> list[Array]:
        """The second half of ``run``: waits, and fetches the outputs."""
        ...

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        """As ``run``, with the time of every step."""
        ...

    def close(self) -> None: ...


class Device(Protocol):
    """A place where plans run."""

    info: DeviceInfo
    caps: DeviceCaps

    def prepare(self, plan: Plan) -> Executable: ...

    def close(self) -> None: ...


def to_device(array: Array, name: str) -> Array:
    """The same numbers as float32 or int32. Raises InvalidInputError when one does not fit."""
    if array.dtype.kind == "f":
        return _dense(array, np.float32)
    if array.dtype in (np.int64, np.uint64, np.uint32) and array.size:
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise InvalidInputError(
                f"value '{name}' holds {low if low < -(2**31) else high}, outside the device's "
                "int32; "
                "run with device='reference' if such integers are meant"
            )
    return _dense(array, np.int32)


def from_device(array: Array, dtype: str) -> Array:
    """Device elements (float32 or int32) in the ONNX dtype; always a copy of its own."""
    return array.astype(dtype)


def fill(into: Array | None, array: Array, name: str) -> Array:
    """``into`` with the numbers of ``array`` in its own dtype; without it, a copy of ``array``.
    Raises InvalidInputError where the shapes differ."""
    if into is None:
        return np.array(array)
    if into.shape != array.shape:
        raise InvalidInputError(
            f"output '{name}' has shape {array.shape}, the array bound to it {into.shape}"
        )
    np.copyto(into, array, "unsafe")
    return into


def element_count(view: View) -> int:
    """Elements of the tensor that a view shows."""
    count = 1
    for dim in view.shape:
        count *= dim
    return count


def _dense(array: Array, dtype: type[np.generic]) -> Array:
    # ascontiguousarray makes a scalar one-dimensional
    return np.ascontiguousarray(array, dtype).reshape(array.shape)
