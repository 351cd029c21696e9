"""What lowering returns and a device executes: storages, views, dispatches, host steps. Pure data.

A *storage* is one planned allocation: a range of the arena (lives from its first writer to its last
reader) or a constant (weights, tables). A *view* is how one tensor lies in a storage. A *buffer
range* is the part of a storage that a descriptor binds. Nothing here knows a device or an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

from vkconv.ir import Array, Layout
from vkconv.storage import Packing as Packing
from vkconv.storage import Storage as Storage

#: every element on the device takes four bytes (float32, or int32 for integers and bool)
ELEMENT_BYTES = 4
#: storages, and the ranges descriptors bind, start at multiples of this: the largest alignment that
#: Vulkan lets a device ask for storage and texel buffers (spec, table "Required Limits")
ALIGNMENT = 256

Number: TypeAlias = "int | float"
PushValue: TypeAlias = "int | float | Sequence[int] | Sequence[float]"


@dataclass(frozen=True)
class View:
    """A tensor inside a storage, in elements of four bytes.

    ``linear``: dense row-major from ``offset``; rows of a wider tensor, (rows, length), have a
    ``batch_stride``. ``c4``: ``[N][ceil(C/4)][H][W]`` of vec4 whose batches are ``batch_stride``
    elements apart (a channel slice of a wider tensor keeps the wider stride).
    """

    storage: Storage
    shape: tuple[int, ...]
    dtype: str
    layout: Layout
    offset: int = 0
    batch_stride: int = 0

    @property
    def span(self) -> int:
        """Elements from the first to one past the last that the tensor touches."""
        if self.layout == "linear":
            count = prod(self.shape)
            if self.batch_stride and len(self.shape) == 2 and count:
                return (self.shape[0] - 1) * self.batch_stride + self.shape[1]
            return count
        n, c4, h, w = c4_dims(self.shape)
        return (n - 1) * self.batch_stride + c4 * h * w * 4 if n * c4 * h * w else 0

    @property
    def is_integer(self) -> bool:
        return not self.dtype.startswith("float")


def c4_dims(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """(N, ceil(C/4), H, W) of a C4 tensor; leading spatial dims fold into H, a missing one counts
    as 1.

    Rank 3 is (N, C, L) -> H = 1, W = L. Rank 5 is (N, C, D, H, W) -> H = D * H.
    """
    n, c = shape[0], shape[1]
    w = shape[-1] if len(shape) > 2 else 1
    h = 1
    for d in shape[2:-1]:
        h *= d
    return n, (c + 3) // 4, h, w


@dataclass(frozen=True)
class BufferRange:
    """Bytes ``[offset, offset + size)`` of a storage, ``offset`` a multiple of ALIGNMENT."""

    storage: Storage
    offset: int
    size: int
    reads: bool
    writes: bool


@dataclass(frozen=True)
class Dispatch:
    """One kernel launch. Names are those of the shader's interface, checked against it when
    planned.

    ``grid`` counts workgroups. ``barrier`` says that earlier dispatches must finish first.
    """

    node: str
    kernel: str
    variant: tuple[tuple[str, str], ...]
    buffers: Mapping[str, BufferRange]
    push: Mapping[str, PushValue]
    spec: Mapping[str, Number]
    grid: tuple[int, int, int]
    barrier: bool = True


@dataclass(frozen=True)
class HostSlot:
    """A tensor that only host steps (or the caller) touch: kept as a numpy array, never on the
    device."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class HostStep:
    """A node computed by numpy between two runs of dispatches; ``compute`` takes and returns
    arrays.

    Inputs that are arrays are constants. Views hold the device's four-byte elements: arrays are
    converted to and from the ONNX dtype at the border.
    """

    node: str
    op_type: str
    reason: str
    inputs: tuple[View | HostSlot | Array | None, ...]
    outputs: tuple[View | HostSlot, ...]
    compute: Callable[..., object] = field(repr=False)


Step: TypeAlias = "Dispatch | HostStep"


@dataclass(frozen=True)
class Port:
    """A graph input or output, and where it lies: a linear view, a host slot, or (a folded output)
    an array.

    ``dtype`` is what the caller sees. An input that nothing reads has ``place`` None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    place: View | HostSlot | Array | None


@dataclass(frozen=True)
class Plan:
    """A model at concrete shapes, ready for a device: what to run, on which bytes, in which
    order."""

    steps: tuple[Step, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_size: int
    #: the most bytes that are live at once: no arena can be smaller
    arena_lower_bound: int
    constants: tuple[Storage, ...]
    #: arena storages with their place, for display and for tests that poison or guard them
    storages: tuple[Storage, ...]
    #: floating-point operations of the nodes, by name; one that is not listed has hardly any
    flops: Mapping[str, int] = field(default_factory=dict)

    @property
    def dispatches(self) -> list[Dispatch]:
        return [s for s in self.steps if isinstance(s, Dispatch)]
