"""Everything ``vkconv doctor`` finds out, as data: sections of facts, results, and findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vkconv.capabilities import DeviceCaps, DeviceChoice
from vkconv.device import open_device
from vkconv.device.vulkan.enumerate import probes
from vkconv.device.vulkan.loader import load, text
from vkconv.device.vulkan.probe import QUIRKS, Probe
from vkconv.diagnosis import system
from vkconv.errors import DeviceError, InvalidInputError, VkconvError

if TYPE_CHECKING:
    from vkconv.diagnosis.self_test import FamilyResult

__all__ = ["Diagnosis", "Finding", "diagnose"]

Rows = list[tuple[str, str]]

#: what to do about a family that fails
DRIVER_REMEDY = "update the graphics driver; if that does not help, report it with this text"
OWN_REMEDY = (
    "this is a fault of vkconv or of its installation, not of the graphics driver: install vkconv "
    "again (pip install --force-reinstall vkconv); if that does not help, report it with this text"
)


@dataclass(frozen=True)
class Finding:
    """Something wrong, and what to do about it. A warning does not keep models from running."""

    what: str
    remedy: str
    is_warning: bool = False


@dataclass
class Diagnosis:
    """Sections of (heading, value), the self-test of one device, and what is wrong."""

    sections: dict[str, Rows] = field(default_factory=dict)
    tested: str = ""
    families: list[FamilyResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether a device is there and computes what it should."""
        return all(finding.is_warning for finding in self.findings)

    def find(self, what: str, remedy: str, is_warning: bool = False) -> None:
        self.findings.append(Finding(what, remedy, is_warning))


def diagnose(
    device: DeviceChoice = "auto",
    *,
    self_test: bool = True,
    tell: Callable[[FamilyResult], None] | None = None,
) -> Diagnosis:
    """Look at everything; the self-test runs on ``device``. ``tell`` hears of each family.

    Raises InvalidInputError where ``device`` is the reference, which needs no test.
    """
    made = Diagnosis()
    made.sections["versions"] = system.versions()
    made.sections["environment"] = system.switches() or [("", "no switch is set")]
    _caches(made)
    if _loader(made) and _devices(made) and self_test:
        _self_test(made, device, tell)
    return made


def _caches(made: Diagnosis) -> None:
    rows, problem = system.cache_facts()
    made.sections["cache"] = rows
    if problem:
        made.find(
            f"the cache cannot be used: {problem}",
            "set VKCONV_CACHE_DIR to a folder of your own; models load more slowly without",
            is_warning=True,
        )


def _loader(made: Diagnosis) -> bool:
    """Whether there is a Vulkan loader; with it the driver files that it reads."""
    rows: Rows = []
    made.sections["loader and drivers"] = rows
    try:
        api = load()
    except DeviceError as error:
        rows.append(("loader", "none"))
        is_binding = "Python package" in str(error)
        remedy = "pip install vulkan" if is_binding else system.install_remedy()
        made.find(str(error), remedy)
    else:
        version = api.ffi.new("uint32_t *")
        api.lib.vkEnumerateInstanceVersion(version)
        v = version[0]
        rows.append(("loader", f"Vulkan {v >> 22 & 0x7F}.{v >> 12 & 0x3FF}.{v & 0xFFF}"))
        layers = api.listed(
            api.lib.vkEnumerateInstanceLayerProperties,
            "VkLayerProperties",
            pick=lambda layer: text(api, layer.layerName),
        )
        rows.append(("layers", ", ".join(sorted(layers)) or "none"))
    drivers = system.driver_files()
    for driver in drivers:
        about = driver.problem or driver.library
        rows.append(("driver", f"{driver.path}: {about}"))
        if driver.problem:
            made.find(
                f"driver file '{driver.path}': {driver.problem}",
                "install its driver again, take the file away, or correct VK_DRIVER_FILES and "
                "VK_ICD_FILENAMES if they name it",
                is_warning=True,
            )
    if not drivers:
        rows.append(("driver", "no driver file was found"))
    return rows[0][1] != "none"


def _devices(made: Diagnosis) -> bool:
    """Whether there is a device; a section for each."""
    try:
        found = probes()
    except VkconvError as error:
        made.sections["devices"] = [("", "none")]
        is_switch = str(error).startswith("VKCONV_")
        remedy = "correct it, or unset it" if is_switch else system.install_remedy()
        made.find(str(error), remedy)
        return False
    for probe in found:
        made.sections[f"device {probe.info.index}"] = _device_rows(probe)
    nodes, locked = system.render_nodes(), system.locked_render_nodes()
    if locked and all(probe.info.kind == "cpu" for probe in found):
        made.find(
            f"no permission to use the GPU at {', '.join(locked)}",
            "add yourself to the groups that own it (usermod -aG render,video USER), log in again",
            is_warning=True,
        )
    elif nodes and all(probe.info.kind == "cpu" for probe in found):
        made.find(
            f"there is a GPU ({', '.join(nodes)}), but only a driver for the processor",
            system.install_remedy(),
            is_warning=True,
        )
    return True


def _device_rows(probe: Probe) -> Rows:
    info, caps = probe.info, probe.caps
    quirks = [q for q in QUIRKS if q.name in info.name and f"{q.vendor:04x}-" in probe.cache_key]
    by_quirk = {q.disable for q in quirks}
    rows = [
        ("name", info.name),
        ("kind", info.kind),
        ("driver", info.driver),
        ("Vulkan", info.api_version),
        ("memory", f"{info.memory_bytes / 2**30:.2f} GiB, {len(probe.memory_types)} memory types"),
        ("features", ", ".join(info.features) or "none of the optional ones"),
        ("switched off", ", ".join(sorted(probe.disabled - by_quirk)) or "nothing"),
    ]
    rows += [("quirk", f"{q.disable} is off: {q.reason}") for q in quirks] or [("quirk", "none")]
    largest = f"max_allocation_bytes {probe.max_allocation_bytes}"
    count = f"max_allocation_count {probe.max_allocation_count}"
    return [*rows, *_limits(caps), ("limit", f"{largest}, {count}")]


def _limits(caps: DeviceCaps) -> Rows:
    """Two limits in a line, each under the name that VKCONV_LIMITS takes."""
    shown = []
    for entry in dataclasses.fields(caps):
        value: Any = getattr(caps, entry.name)
        if isinstance(value, bool | str):
            continue
        number = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        shown.append(f"{entry.name} {number}")
    return [("limit", ", ".join(shown[i : i + 2])) for i in range(0, len(shown), 2)]


def _self_test(
    made: Diagnosis, choice: DeviceChoice, tell: Callable[[FamilyResult], None] | None
) -> None:
    try:
        device = open_device(choice)
    except VkconvError as error:
        remedy = (
            "choose one of the devices above"
            if "no device" in str(error)
            else (system.install_remedy())
        )
        made.find(f"the device cannot be opened: {error}", remedy)
        return
    try:
        if device.caps.host_only:
            raise InvalidInputError("the self-test is of Vulkan devices; name one with --device")
        # passes and operators are imported only where there is a device to run them on
        from vkconv.diagnosis.self_test import run_self_test

        made.tested = device.info.name
        made.families = run_self_test(device, tell=tell)
    finally:
        device.close()
    for result in made.families:
        if not result.holds:
            made.find(
                f"self-test of {result.family} failed on '{made.tested}': {result.failure}",
                OWN_REMEDY if result.is_own_fault else DRIVER_REMEDY,
            )
