"""``VKCONV_LIMITS``: lowers a device's limits, to imitate a small device on a large one.

    VKCONV_LIMITS="max_storage_buffer_range=1048576,subgroup_size=4"

Names are the whole-number fields of ``DeviceCaps``, and ``max_allocation_bytes``. A value above
what the device offers, or above that of VKCONV_PROFILE, changes nothing: limits are lowered only.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from vkconv.capabilities import DeviceCaps
from vkconv.device.vulkan.profiles import chosen_profile
from vkconv.errors import DeviceError

_ALLOCATION = "max_allocation_bytes"
_WHOLE = ("int", "tuple[int, int, int]")
#: what VKCONV_LIMITS may name; of a field of three axes the value holds for each
NAMES: tuple[str, ...] = (
    *(f.name for f in dataclasses.fields(DeviceCaps) if f.type in _WHOLE),
    _ALLOCATION,
)


def given_limits() -> dict[str, int]:
    """The limits of VKCONV_PROFILE and VKCONV_LIMITS, the lower of both.

    Raises DeviceError for what they do not take.
    """
    found = dict(chosen_profile().limits)
    for part in os.environ.get("VKCONV_LIMITS", "").split(","):
        if not part.strip():
            continue
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in NAMES:
            raise DeviceError(
                f"VKCONV_LIMITS names unknown limit '{name}'; it takes {', '.join(NAMES)}"
            )
        if not equals or not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 63:
            raise DeviceError(
                f"VKCONV_LIMITS: '{part.strip()}' is not a limit such as {name}=65536"
            )
        if name == "subgroup_size" and int(text) & (int(text) - 1):
            raise DeviceError(f"VKCONV_LIMITS: subgroup_size is a power of two, not {text}")
        found[name] = min(int(text), found.get(name, int(text)))
    return found


def with_lower_limits(caps: DeviceCaps, given: Mapping[str, int]) -> DeviceCaps:
    """``caps`` with no limit above those given."""
    changes: dict[str, int | tuple[int, ...]] = {}
    for name, most in given.items():
        if name == _ALLOCATION:
            continue
        now = getattr(caps, name)
        changes[name] = tuple(min(n, most) for n in now) if type(now) is tuple else min(now, most)
    return dataclasses.replace(caps, **changes)  # type: ignore[arg-type]


def allocation_limit(size: int, given: Mapping[str, int]) -> int:
    """The largest allocation in bytes, given what the driver allows."""
    return min(size, given.get(_ALLOCATION, size))
