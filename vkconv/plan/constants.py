"""Constants of a model as device storages, packed once however often the model is planned."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vkconv.dispatch import ELEMENT_BYTES, Packing, Storage, View
from vkconv.ir import Array

Key = tuple[tuple[int, ...], str]


def device_array(array: Array) -> Array:
    """Constants as float32 or int32 elements, dense, in their shape.

    Integers beyond int32 saturate: ONNX writes INT64_MAX for "to the end".
    """
    if array.dtype.kind == "f":
        dense = np.ascontiguousarray(array, np.float32)
    else:
        limits = np.iinfo(np.int32)
        wide = array.dtype.kind in "iu" and array.dtype.itemsize >= 4
        fits = np.clip(array, limits.min, limits.max) if wide else array
        dense = np.ascontiguousarray(fits, np.int32)
    return dense.reshape(array.shape)  # ascontiguousarray makes a scalar one-dimensional


class ConstantStore:
    """Packed constants by (source arrays, tag). Lives as long as the session: plans share storages.

    An entry goes when no plan holds its storage any more: each plan folds constants of its own, and
    a session that meets new shapes for days must not keep them all.
    """

    def __init__(self) -> None:
        self._packed: dict[Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def get(
        self, sources: tuple[Array, ...], tag: str, pack: Callable[[], Array] | Packing
    ) -> View:
        """The constant that ``pack`` makes: now, or with a Packing when a device wants it."""
        key = (tuple(id(s) for s in sources), tag)
        entry = self._packed.get(key)
        storage = entry.storage() if entry is not None else None
        if entry is None or storage is None:
            view = _packed_view(pack, tag)
            packed = self._packed

            def forget(gone: weakref.ref[Storage]) -> None:
                if key in packed and packed[key].storage is gone:
                    del packed[key]

            self._packed[key] = _Entry(
                sources, weakref.ref(view.storage, forget), view.shape, view.dtype
            )
            return view
        return View(storage, entry.shape, entry.dtype, "linear")


@dataclass(frozen=True, eq=False)
class _Entry:
    #: kept beside their ids: an id may be reused once its object is gone
    sources: tuple[Array, ...]
    storage: weakref.ref[Storage]
    shape: tuple[int, ...]
    dtype: str


def _packed_view(pack: Callable[[], Array] | Packing, name: str) -> View:
    if isinstance(pack, Packing):
        storage = Storage(max(pack.nbytes, ELEMENT_BYTES), name, pack=pack)
        return View(storage, pack.shape, pack.dtype, "linear")
    make = pack
    return constant_view(make(), name, lambda: device_array(make()))


def constant_view(array: Array, name: str, pack: Callable[[], Array] | None = None) -> View:
    """A new constant storage that holds ``array``, viewed in its shape; ``pack`` makes the same
    elements again."""
    data = device_array(array)
    storage = Storage(max(data.nbytes, ELEMENT_BYTES), name, data, pack=pack)
    dtype = "float32" if data.dtype.kind == "f" else "int32"
    return View(storage, data.shape, dtype, "linear")
