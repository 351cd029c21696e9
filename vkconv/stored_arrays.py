"""Constants whose elements are still where the model has them: in its file.

A large weight is packed from the file straight into a device's memory, some rows at a time, and is
nowhere else. To whoever looks at its elements it is a numpy array, read at that moment; and it is
noted that they were looked at, since what was planned may depend on them.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

Array: TypeAlias = npt.NDArray[Any]
#: fills a target with a weight's bytes from an offset on, or raises
Load = Callable[[memoryview, int], None]

#: bytes that are read and worked on together: they stay in the processor's cache
PIECE = 1 << 19


class StoredWeight:
    """A tensor's bytes in the model's file. Threads may share it.

    ``number``: its place among the file's weights. ``was_read``: somebody asked for the elements
    themselves, not only to pack them.
    """

    def __init__(self, number: int, nbytes: int, load: Load) -> None:
        self.number, self.nbytes = number, nbytes
        self.was_read = False
        self._load: Load | None = load
        self._held: Array | None = None
        self._lock = threading.Lock()

    @property
    def held(self) -> Array | None:
        """The bytes, where they are in memory."""
        return self._held

    def hold(self) -> Array:
        """The bytes, in memory from now on: the file is not needed any more."""
        with self._lock:
            if self._held is None:
                made = np.empty(self.nbytes, np.uint8)
                self._file()(made.data, 0)
                made.flags.writeable = False
                self._held, self._load = made, None
            return self._held

    def leave(self) -> None:
        """Lets go of the file: what is not held by now is not wanted any more."""
        with self._lock:
            self._load = None

    def read_into(self, target: Array, offset: int) -> None:
        """Fills ``target``, bytes, from ``offset`` on."""
        with self._lock:
            held, load = self._held, None if self._held is not None else self._file()
        if held is not None:
            target[:] = held[offset : offset + target.size]
        elif load is not None:
            load(target.data, offset)

    def _file(self) -> Load:
        if self._load is None:
            raise ValueError("a weight was asked for after its model's file was left")
        return self._load

    def digest(self) -> str:
        """SHA-256 of the bytes."""
        found, piece = hashlib.sha256(), np.empty(min(PIECE, self.nbytes), np.uint8)
        for first in range(0, self.nbytes, PIECE):
            part = piece[: min(PIECE, self.nbytes - first)]
            self.read_into(part, first)
            found.update(part.data)
        return found.hexdigest()


#: bytes of a weight: itself, the first, how many
Part: TypeAlias = "tuple[StoredWeight, int, int]"


class StoredArray(NDArrayOperatorsMixin):
    """An array whose rows, along the first axis, lie in parts of the file, one behind the other.

    Type and shape are known; whatever else is asked of it as of an array reads it, and stays in
    memory. ``rows`` does not.
    """

    def __init__(self, dtype: str, shape: Sequence[int], parts: Sequence[Part]) -> None:
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)
        self.parts = tuple(parts)
        self._array: Array | None = None
        self._lock = threading.Lock()
        if sum(count for _, _, count in self.parts) != self.nbytes:
            raise ValueError(f"{self.shape} does not fit the parts")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def held(self) -> list[Array]:
        """What of it is in memory."""
        copied = None if self._is_whole else self._array
        return [a for a in (copied, *(w.held for w, _, _ in self.parts)) if a is not None]

    def hold(self) -> None:
        """Keeps in memory what it is made of: the file is not needed any more."""
        for weight, _, _ in self.parts:
            weight.hold()

    def leave(self) -> None:
        """Lets go of the file."""
        for weight, _, _ in self.parts:
            weight.leave()

    def rows(self, first: int, last: int) -> Array:
        """Some rows, in memory of their own. Nobody else learns of what they hold."""
        row = self.nbytes // max(self.shape[0], 1)
        made = np.empty((last - first) * row, np.uint8)
        start, begin, end = 0, first * row, last * row
        for weight, offset, count in self.parts:
            low, high = max(begin, start), min(end, start + count)
            if low < high:
                weight.read_into(made[low - begin : high - begin], offset + low - start)
            start += count
        found = made.view(self.dtype.newbyteorder("<")).astype(self.dtype, copy=False)
        return found.reshape(last - first, *self.shape[1:])

    def read(self) -> Array:
        """All of it, read-only; noted with its weights."""
        with self._lock:
            if self._array is None:
                for weight, _, _ in self.parts:
                    weight.was_read = True
                self._array = self._whole()
            return self._array

    @property
    def _is_whole(self) -> bool:
        """Whether it is one weight, all of it: an array of the same bytes."""
        return len(self.parts) == 1 and self.parts[0][2] == self.parts[0][0].nbytes

    def _whole(self) -> Array:
        if self._is_whole:
            raw = self.parts[0][0].hold().view(self.dtype.newbyteorder("<"))
            made = raw.astype(self.dtype, copy=False).reshape(self.shape)
        else:
            made = self.rows(0, self.shape[0])
        made.flags.writeable = False
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.read(), dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        given = [x.read() if isinstance(x, StoredArray) else x for x in inputs]
        return getattr(ufunc, method)(*given, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a protocol that asks whether it is there
            raise AttributeError(name)
        return getattr(self.read(), name)

    def __getitem__(self, index: Any) -> Any:
        return self.read()[index]

    def __len__(self) -> int:
        return self.shape[0]


Source: TypeAlias = "Array | StoredArray"


def rows(source: Source, first: int, last: int) -> Array:
    """Rows of an array, or of a stored one."""
    return source.rows(first, last) if isinstance(source, StoredArray) else source[first:last]


def concatenated(sources: Sequence[Source]) -> Source:
    """The sources, of one type, one behind the other along the first axis; read only where one of
    them is in memory anyway."""
    stored = [s for s in sources if isinstance(s, StoredArray)]
    if len(stored) < len(sources):
        return np.concatenate([np.asarray(s) for s in sources])
    shape = (sum(s.shape[0] for s in stored), *stored[0].shape[1:])
    return StoredArray(stored[0].dtype.name, shape, [p for s in stored for p in s.parts])
