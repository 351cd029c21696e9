"""Constants of a model as device storages, packed once however often the model is planned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vkconv.dispatch import ELEMENT_BYTES, Storage, View
from vkconv.ir import Array


def device_array(array: Array) -> Array:
    """Constants as float32 or int32 elements; integers beyond int32 saturate (ONNX writes INT64_MAX for "to the end")."""
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, np.float32)
    limits = np.iinfo(np.int32)
    return np.ascontiguousarray(
        np.clip(array, limits.min, limits.max) if array.dtype.itemsize > 4 else array, np.int32
    )


class ConstantStore:
    """Packed constants by (source arrays, tag). Lives as long as the session, so plans share storages."""

    def __init__(self) -> None:
        # the sources are kept beside their ids: an id may be reused once its object is gone
        self._packed: dict[tuple[tuple[int, ...], str], tuple[tuple[Array, ...], View]] = {}

    def get(self, sources: tuple[Array, ...], tag: str, pack: Callable[[], Array]) -> View:
        key = (tuple(id(s) for s in sources), tag)
        if key not in self._packed:
            self._packed[key] = (sources, constant_view(pack(), tag))
        return self._packed[key][1]


def constant_view(array: Array, name: str) -> View:
    """A new constant storage that holds ``array``, viewed in its shape."""
    data = device_array(array)
    storage = Storage(max(data.nbytes, ELEMENT_BYTES), name, data)
    dtype = "float32" if data.dtype.kind == "f" else "int32"
    return View(storage, data.shape, dtype, "linear")
