"""The devices of this system, and which one a choice such as "auto", 1, "gpu" or "Radeon" means."""

from __future__ import annotations

from vkconv.capabilities import DeviceInfo
from vkconv.device.vulkan.limits import given_limits
from vkconv.device.vulkan.loader import instance
from vkconv.device.vulkan.probe import Probe, disabled_features, probe
from vkconv.errors import DeviceError

#: "auto" takes the first kind that is there
PREFERENCE = ("discrete", "integrated", "virtual", "other", "cpu")


def probes() -> list[Probe]:
    """Every device that speaks Vulkan 1.1, in the driver's order.

    Raises DeviceError where there is none, saying what to install.
    """
    disabled_features()  # a typo in the environment must not read as "no device"
    given_limits()
    found: list[Probe] = []
    reasons: list[str] = []
    system = instance()
    for physical in system.physical_devices():
        try:
            found.append(probe(system.api, physical, len(found)))
        except DeviceError as error:
            reasons.append(str(error))
    if not found:
        raise DeviceError(f"no usable Vulkan device: {'; '.join(reasons)}")
    return found


def infos() -> list[DeviceInfo]:
    """What ``vkconv.devices()`` lists."""
    return [p.info for p in probes()]


def choose(choice: str | int, found: list[Probe]) -> Probe:
    """The device that ``choice`` names.

    An index, "auto", "gpu" or "cpu", a kind ("integrated"), or a part of the name in any case. Of
    several that fit, the one "auto" would take.
    """
    if isinstance(choice, int) or choice.strip().isdecimal():
        index = int(choice)
        if 0 <= index < len(found):
            return found[index]
        raise DeviceError(f"there is no device {index}; {_listing(found)}")
    wanted = choice.strip().lower()
    ordered = sorted(found, key=lambda p: PREFERENCE.index(p.info.kind))
    if wanted == "auto":
        return ordered[0]
    for p in ordered:
        kind = p.info.kind
        if wanted == kind or (wanted == "gpu" and kind in PREFERENCE[:3]):
            return p
    for p in ordered:
        if wanted and wanted in p.info.name.lower():
            return p
    raise DeviceError(f"no device called '{choice}'; {_listing(found)}")


def _listing(found: list[Probe]) -> str:
    rows = ", ".join(f"{p.info.index}: {p.info.name} ({p.info.kind})" for p in found)
    return f"there are {rows}; also auto, gpu, cpu, reference"
