"""Planned allocations, and how the elements of constants are made. Knows no device.

Weights are large, so their elements are in as few places as can be: as the model has them until
they are packed, packed in the device's memory from then on, and nowhere else.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vkconv.ir import Array
from vkconv.stored_arrays import Source


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a constant is packed from weights of the model's file, in a form that can be written:
    the name of a packer (``weight_packing``), and what it takes."""

    packer: str
    sources: tuple[Source | None, ...]
    numbers: dict[str, int]


@dataclass(frozen=True, eq=False)
class Packing:
    """How the elements of a constant are made, in memory that may be the device's own.

    ``write`` fills an array of this shape and dtype, which holds anything at first. It may be
    called again, and by any thread. ``recipe``: the same, as data.
    """

    shape: tuple[int, ...]
    write: Callable[[Array], None]
    dtype: str = "float32"
    recipe: Recipe | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def array(self) -> Array:
        """The elements in memory of their own."""
        made = np.empty(self.shape, self.dtype)
        self.write(made)
        return made


class Storage:
    """One allocation. A constant has ``data``; ``offset`` is set when the arena is planned.

    Where ``pack`` can make a constant's data again, a device drops it once it is uploaded; with a
    ``Packing`` it is not made at all before a device says where to. A constant that is
    ``used_once`` lets go of what it was packed from, too.
    """

    def __init__(
        self,
        size: int,
        name: str,
        data: Array | None = None,
        offset: int = 0,
        pack: Callable[[], Array] | Packing | None = None,
    ) -> None:
        self.size, self.name, self.offset = size, name, offset
        self.is_constant = data is not None or isinstance(pack, Packing)
        self.used_once = False
        self._data, self._pack = data, pack
        self._is_uploaded = False
        #: its bytes in the device's memory, where the host reaches that
        self._resident: Array | None = None
        #: somebody is still going to ``read`` it
        self._is_wanted = False
        #: held while the bytes are read, and where they are given up
        self._lock = threading.RLock()

    @property
    def data(self) -> Array | None:
        """A constant's elements; packed anew where they were dropped, None where they were
        forgotten."""
        if self._data is not None:
            return self._data
        if isinstance(self._pack, Packing):
            return self._pack.array()
        return None if self._pack is None else self._pack()

    @property
    def recipe(self) -> Recipe | None:
        """How its elements are packed, where that can be written."""
        return self._pack.recipe if isinstance(self._pack, Packing) else None

    @property
    def data_type(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a constant's elements."""
        if self._data is None and isinstance(self._pack, Packing):
            return self._pack.shape, self._pack.dtype
        data = self.data
        if data is None:
            raise ValueError(f"constant '{self.name}' was forgotten")
        return data.shape, data.dtype.name

    @property
    def held_bytes(self) -> int:
        """Memory that the data takes in this process."""
        return 0 if self._data is None else self._data.nbytes

    def write_to(self, target: Array) -> int:
        """Puts the elements at the start of ``target``, bytes of memory; returns how many.

        Raises ValueError where they were forgotten, or are more than ``size`` bytes.
        """
        if self._data is None and isinstance(self._pack, Packing):
            count = self._checked(self._pack.nbytes)
            self._pack.write(target[:count].view(self._pack.dtype).reshape(self._pack.shape))
            return count
        data = self.data
        if data is None:
            raise ValueError(f"constant '{self.name}' was forgotten")
        count = self._checked(data.nbytes)
        target[:count] = _bytes(data)
        return count

    def drop(self, resident: Array | None = None) -> None:
        """A device has the elements: let go of data that can be packed again. ``resident``: its
        bytes in the device's memory, to be read there until ``leave``."""
        with self._lock:
            self._resident, self._is_uploaded = resident, True
            if self._pack is not None:
                self._data = None
            self._let_go()

    def leave(self) -> None:
        """The device's memory goes. Waits for whoever reads it."""
        with self._lock:
            self._resident = None

    def forget(self) -> None:
        """Let go of data for good, with what it was packed from: it stays on the device only."""
        with self._lock:
            self.used_once = self._is_uploaded = True
            self._let_go()

    def want(self) -> None:
        """Until it has been ``read``, or is not wanted any more, it can be."""
        self._is_wanted = True

    def read(self, use: Callable[[Array], None]) -> None:
        """Calls ``use`` with the bytes of the elements, wherever they are. Raises ValueError where
        they are gone."""
        with self._lock:
            data = self._resident if self._resident is not None else self.data
            if data is None:
                raise ValueError(f"constant '{self.name}' is gone")
            use(_bytes(data))

    def release(self) -> None:
        """Nobody is going to ``read`` it any more."""
        with self._lock:
            self._is_wanted = False
            self._let_go()

    def _let_go(self) -> None:
        needed = self._is_wanted and self._resident is None
        if self.used_once and self._is_uploaded and not needed:
            self._data = self._pack = None

    def _checked(self, count: int) -> int:
        if count > self.size:
            raise ValueError(
                f"constant '{self.name}' holds {count} bytes in a storage of {self.size}"
            )
        return count

    def __repr__(self) -> str:
        return f"Storage({self.size}, {self.name!r}, offset={self.offset})"


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
