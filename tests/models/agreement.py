"""A net of the zoo against onnxruntime: every output, in dtype, shape and value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.models.comparison import ALLOWED_NMSE, ON_DEVICE, nmse, onnxruntime_session
from vkconv import InferenceSession

Arrays = dict[str, NDArray[np.generic]]
#: scores as close as this may change places
SAME_SCORE = 1e-5


def agree(path: Path, feeds: Sequence[Arrays], ranked: Sequence[str] = ()) -> float:
    """Run ``feeds`` through one session; returns the worst NMSE of all outputs.

    It has to be within what is allowed and integers have to be equal. No operator at all may run
    on the host: shapes are folded, and what NonMaxSuppression keeps is counted on the device.
    ``ranked``: outputs in the order of the first of them.
    """
    oracle = onnxruntime_session(path)
    worst = 0.0
    with InferenceSession(os.fspath(path), strict=True) as session:
        names = [o.name for o in session.get_outputs()]
        assert names == [o.name for o in oracle.get_outputs()]
        for feed in feeds:
            actual = dict(zip(names, session.run(None, feed), strict=True))
            expected = dict(zip(names, oracle.run(None, dict(feed)), strict=True))
            if ranked:
                actual |= in_order(actual, expected, ranked)
            worst = max(worst, *(error(n, actual[n], expected[n]) for n in names))
            elsewhere = [p for p in session.placement if p.where not in ON_DEVICE]
            assert not elsewhere, elsewhere
    assert worst <= ALLOWED_NMSE
    return worst


def error(name: str, actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """The NMSE of floats; 0 for other types, which have to be equal."""
    assert actual.dtype == expected.dtype, name
    assert actual.shape == expected.shape, name
    if not np.issubdtype(expected.dtype, np.floating):
        np.testing.assert_array_equal(actual, expected, err_msg=name)
        return 0.0
    assert np.std(expected) > 0, f"{name} does not vary, which shows nothing"
    return nmse(actual, expected)


def in_order(
    actual: Mapping[str, NDArray[np.generic]],
    expected: Mapping[str, NDArray[np.generic]],
    ranked: Sequence[str],
) -> Arrays:
    """The ranked outputs of ``actual`` with rows of one score placed as in ``expected``."""
    scores, wanted = actual[ranked[0]], expected[ranked[0]]
    result = {name: actual[name].copy() for name in ranked}
    for image in range(len(wanted)):
        free = list(range(wanted.shape[1]))
        for place, score in enumerate(wanted[image]):
            tied = [row for row in free if abs(scores[image, row] - score) <= SAME_SCORE]
            assert tied, f"no row scores {score}"
            row = min(tied, key=lambda r: _distance(actual, expected, ranked, image, r, place))
            free.remove(row)
            for name in ranked:
                result[name][image, place] = actual[name][image, row]
    return result


def _distance(
    actual: Mapping[str, NDArray[np.generic]],
    expected: Mapping[str, NDArray[np.generic]],
    ranked: Sequence[str],
    image: int,
    row: int,
    place: int,
) -> float:
    pairs = ((actual[n][image, row], expected[n][image, place]) for n in ranked[1:])
    return sum(float(np.abs(a.astype(np.float64) - e).sum()) for a, e in pairs)
