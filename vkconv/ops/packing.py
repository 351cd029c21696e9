"""Constants in the C4 layout, packed by numpy when a model is planned."""

from __future__ import annotations

import numpy as np

from vkconv.dispatch import c4_dims
from vkconv.ir import Array
from vkconv.weight_packing import pad_axis as pad_axis


def pack_c4(array: Array) -> Array:
    """(N, C, spatial...) to ``[N][ceil(C/4)][H][W][4]`` float32, padding channels zero. Rank 2
    counts as H = W = 1."""
    n, c4, h, w = c4_dims(array.shape)
    channels = array.shape[1]
    padded = np.zeros((n, c4 * 4, h, w), np.float32)
    padded[:, :channels] = array.reshape(n, channels, h, w)
    return np.ascontiguousarray(padded.reshape(n, c4, 4, h, w).transpose(0, 1, 3, 4, 2))
