"""How the lanes of kernels with ``include/rows.glsl`` share a row, by the device and its length.

Where the rows of a tensor lie, for kernels that walk along an axis, is ``rows``'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import View
from vkconv.ops.shapes import ceil_div

#: rows up to this length are no work for more lanes; a reduction of few longer ones is cut into
#: pieces of it, so that it fills the device
CHUNK = 8192
#: lanes that meet by shuffles
SHUFFLED_LANES = 8
#: scalars of a row that a lane keeps in registers: on a GPU; and on a CPU driver, where those that
#: are too many lie in the first cache
MOST_KEPT, MOST_KEPT_ON_CPU = 32, 160


@dataclass(frozen=True)
class RowShape:
    """The scalars in an element; the lanes that share a row, 0 where each has its own; the elements
    that each keeps in registers, 0 for none; the variant's axes."""

    unit: int
    lanes: int
    kept: int
    axes: dict[str, str]

    @property
    def meets(self) -> bool:
        """Whether the lanes meet at barriers."""
        return self.axes["lanes"] == "shared_row"


_SCALARS = {"width": "scalar", "access": "ssbo"}
OWN_ROW = RowShape(1, 0, 0, {"lanes": "own_row", **_SCALARS})


def share_row(caps: DeviceCaps, length: int, views: Sequence[View | None]) -> RowShape:
    """For dense rows of ``length`` scalars in ``views``, None for one that is not given."""
    whole = length % 4 == 0 and all(view is None or view.offset % 4 == 0 for view in views)
    unit = 4 if whole else 1
    lanes, meeting = _meeting(caps, length)
    kept = ceil_div(length // unit, lanes)
    most = MOST_KEPT_ON_CPU if caps.kind == "cpu" else MOST_KEPT
    if kept * unit > most or not caps.unrolls_loops:
        kept = 0
    width = {"width": "vec4"} if whole else _SCALARS
    return RowShape(unit, lanes, kept, {"lanes": meeting, **width})


def share_strided(caps: DeviceCaps, length: int) -> RowShape:
    """For rows whose elements do not lie beside each other."""
    lanes, meeting = _meeting(caps, length)
    return RowShape(1, lanes, 0, {"lanes": meeting, **_SCALARS})


def _meeting(caps: DeviceCaps, length: int) -> tuple[int, str]:
    """How many lanes share a row, and how their parts meet.

    By shuffles on a CPU driver that has them: a workgroup is one subgroup there, and barriers cost
    more than a row does.
    """
    shuffles = caps.kind == "cpu" and caps.subgroup_shuffle and length <= CHUNK
    if shuffles and caps.subgroup_size >= SHUFFLED_LANES:
        return SHUFFLED_LANES, "shuffled_row"
    return lanes_per_row(caps, length), "shared_row"


def lanes_per_row(caps: DeviceCaps, length: int) -> int:
    """Lanes that share one row: up to 64, which is what the kernels' shared memory holds.

    On CPU drivers 8 as long as that leaves short loops: a workgroup is one thread there, and
    barriers cost.
    """
    if caps.kind == "cpu" and length <= CHUNK:
        return 8
    return min(64, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
