"""Whether nodes that sample by hand compute what DeformConv does: both are run on numbers."""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array, Node, Value
from vkconv.ops.operator import as_tuple
from vkconv.ops.registry import create
from vkconv.passes.sampling_geometry import NotSampling
from vkconv.passes.traced_sampling import Sampling

#: largest normalised mean squared error of what is called equal. The numbers are chosen so that
#: float32 (and float16 on maps of usual size) holds every step exactly, so it is 0 where they are
TOLERANCE = 1e-10


def check_equal(sampling: Sampling) -> None:
    """Run the nodes and DeformConv on the same numbers. NotSampling where the results differ.

    Offsets reach from a fraction of a pixel to far beyond every border of the map. All numbers are
    small multiples of powers of two, so that positions, weights and products have no rounding.
    """
    random = np.random.default_rng(0)
    n, channels = sampling.x.dims[:2]
    taps, (kernel_rows, kernel_columns) = sampling.offset.dims[1] // 2, sampling.geometry.kernel
    rows, columns = sampling.offset.dims[2:]
    weight = random.integers(-8, 9, (2, channels, kernel_rows, kernel_columns)).astype(np.float64)
    attributes = {
        "kernel_shape": sampling.geometry.kernel,
        "strides": sampling.geometry.strides,
        "pads": sampling.geometry.pads,
        "dilations": sampling.geometry.dilations,
    }
    operator = create(Node("DeformConv", [], [], attributes, opset=19))
    # a map of few pixels shows few cases at a time
    for _ in range(int(np.clip(4096 // max(n * taps * rows * columns, 1), 1, 8))):
        x = random.integers(-8, 9, sampling.x.dims).astype(sampling.x.dtype)
        offset = _some_offsets(random, sampling.offset.dims, sampling.x.dims)
        feeds = {sampling.x: x, sampling.offset: offset.astype(sampling.offset.dtype)}
        mask = None
        if sampling.mask is not None:
            mask = random.integers(0, 5, sampling.mask.dims) / 4
            feeds[sampling.mask] = mask.astype(sampling.mask.dtype)
        patches = _evaluate(sampling, feeds).astype(np.float64)
        split = patches.reshape(n, channels, rows, kernel_rows, columns, kernel_columns)
        actual = np.einsum("ncikjl,ockl->noij", split, weight, optimize=True)
        expected = operator.reference(x.astype(np.float64), weight, interleaved(offset), None, mask)
        power, error = float(np.sum(expected**2)), float(np.sum((actual - expected) ** 2))
        if not error <= TOLERANCE * max(power, 1e-30):
            raise NotSampling(
                f"it computes something else than DeformConv (NMSE {error / max(power, 1e-30):.1e})"
            )


def interleaving(taps: int) -> Array:
    """Where DeformConv's offset channels (row, column of tap 0, of tap 1, ...) lie in the order
    "rows of all taps, columns of all taps"."""
    return np.arange(2 * taps).reshape(2, taps).T.reshape(-1)


def interleaved(offset: Array) -> Array:
    return np.asarray(offset[:, interleaving(offset.shape[1] // 2)])


def _some_offsets(random: np.random.Generator, dims: tuple[int, ...], x: tuple[int, ...]) -> Array:
    """Quarters of a pixel; a third within two pixels, a third whole, a third beyond the map."""
    reach = 8 * (x[2] + x[3] + 4)
    near = random.integers(-8, 9, dims)
    far = random.integers(-reach, reach + 1, dims)
    kind = random.integers(0, 3, dims)
    return np.asarray(np.where(kind == 0, near, np.where(kind == 1, near // 4 * 4, far)) / 4)


def _evaluate(sampling: Sampling, feeds: dict[Value, Array]) -> Array:
    """The patches by numpy; an array goes when its last reader has run."""
    known = dict(feeds)
    last = {v: n for n in sampling.nodes for v in n.present_inputs}
    try:
        with np.errstate(all="ignore"):
            for node in sampling.nodes:
                arrays = [
                    None if v is None else v.array if v.array is not None else known[v]
                    for v in node.inputs
                ]
                results = as_tuple(create(node).reference(*arrays))
                known.update(zip(node.outputs, map(np.asarray, results), strict=False))
                for value in node.present_inputs:
                    if last[value] is node:
                        known.pop(value, None)
        return known[sampling.patches]
    except Exception as error:  # an untrusted model: indices out of range and the like
        raise NotSampling(f"it cannot be run: {type(error).__name__}: {error}") from None
