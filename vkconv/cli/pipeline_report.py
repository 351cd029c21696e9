"""What ``vkconv inspect --pipelines`` prints: a table for people, or JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vkconv.cli.terminal import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from vkconv.device.vulkan.statistics import PipelineExecutable, PipelineStatistics
    from vkconv.pipeline_statistics import ModelPipelines

__all__ = ["print_pipelines", "record", "spills"]

#: A column's heading, and what a driver calls it, in any case: the first that this one says. The
#: names are those of Mesa's drivers for AMD, Intel, Adreno, Apple, Mali, VideoCore and PowerVR
#: (src/util/shader_stats.xml, and what anv_pipeline.c had before for Intel).
_SIZES: Mapping[str, Sequence[str]] = {
    "VGPRs": ("vgprs",),
    "SGPRs": ("sgprs",),
    "registers": ("max live registers", "registers used", "gprs", "temp count"),
    "occupancy": ("subgroups per simd", "max waves per core", "threads", "thread count"),
    "code size": ("code size",),
    "instructions": ("instruction count", "instructions"),
}
#: likewise, of columns that stand there where one is above 0
_SPILLED: Mapping[str, Sequence[str]] = {
    "spilled VGPRs": ("spilled vgprs",),
    "spilled SGPRs": ("spilled sgprs",),
    "spills": ("spill count", "spills", "tmu spills", "stp count"),
    "fills": ("fill count", "fills", "tmu fills", "ldp count"),
}
_SCRATCH: Mapping[str, Sequence[str]] = {
    "scratch": ("scratch size", "scratch memory size", "scratch", "spill size"),
}
#: columns shown of a driver that has other names for all of these
_UNKNOWN_COLUMNS = 6


def print_pipelines(console: Console, model: str, found: ModelPipelines) -> None:
    """The table, a row for each executable of each pipeline, and how many pipelines spill."""
    from vkconv.cli.report import describe_device, print_pairs, print_table

    columns = _columns(found.pipelines)
    several = any(len(p.executables) > 1 for p in found.pipelines)
    # of drivers that choose it, half the width is what a kernel pays for too many registers
    widths = len({e.subgroup_size for e in _executables(found.pipelines)}) > 1
    right = ["dispatches", *["subgroup"] * widths, *columns]
    rows = []
    for pipeline, differs in zip(found.pipelines, _differences(found.pipelines), strict=True):
        about = [one_line(pipeline.kernel), one_line(differs)]
        dispatches = str(pipeline.dispatches)
        for executable in pipeline.executables or (None,):
            called = [one_line(executable.name if executable else "")] * several
            values = _values(executable) if executable else {}
            numbers = [_number(values.get(name)) for name in columns.values()]
            width = str(executable.subgroup_size if executable else "")
            rows.append([*about, *called, dispatches, *[width] * widths, *numbers])
            about, dispatches = ["", ""], ""  # said once, above the other executables
    headings = ["kernel", "differs in", *["executable"] * several, *right]
    if rows:
        print_table(console, headings, rows, right=right)
    console.print()
    pairs = [("model", one_line(model)), ("device", describe_device(found.device))]
    pairs.append(("pipelines", _summary(found)))
    if found.deferred:
        nodes = f"{found.deferred} node{'s' * (found.deferred != 1)}"
        pairs.append(("deferred", f"{nodes} left out: a run plans them, by sizes that it computes"))
    print_pairs(console, pairs)


def record(model: str, found: ModelPipelines) -> dict[str, Any]:
    """All that the driver said, for programs; each statistic is described once."""
    pipelines = [
        {
            "kernel": pipeline.kernel,
            "variant": dict(pipeline.variant),
            "specialization": dict(pipeline.specialization),
            "dispatches": pipeline.dispatches,
            "executables": [
                {
                    "name": executable.name,
                    "description": executable.description,
                    "subgroup_size": executable.subgroup_size,
                    "statistics": {s.name: s.value for s in executable.statistics},
                }
                for executable in pipeline.executables
            ],
        }
        for pipeline in found.pipelines
    ]
    device = found.device
    return {
        "model": model,
        "device": {"name": device.name, "kind": device.kind, "driver": device.driver},
        "dispatches": found.dispatches,
        "deferred_nodes": found.deferred,
        "pipelines": pipelines,
        "descriptions": {
            s.name: s.description for e in _executables(found.pipelines) for s in e.statistics
        },
    }


def spills(pipeline: PipelineStatistics) -> bool:
    """Whether registers or arrays of one of its executables go to memory, as far as it is told."""
    names = [name for columns in (_SPILLED, _SCRATCH) for said in columns.values() for name in said]
    return _count([pipeline], names) > 0


def _executables(pipelines: Sequence[PipelineStatistics]) -> Iterator[PipelineExecutable]:
    return (executable for pipeline in pipelines for executable in pipeline.executables)


def _values(executable: PipelineExecutable) -> dict[str, float]:
    return {s.name.lower(): s.value for s in executable.statistics}


def _columns(pipelines: Sequence[PipelineStatistics]) -> dict[str, str]:
    """The statistic of each column, by its heading, that says something of these pipelines."""
    sizes = _said(pipelines, _SIZES)
    if "code size" in sizes:
        sizes.pop("instructions", None)
    lost = _said(pipelines, {**_SPILLED, **_SCRATCH})
    lost = {heading: name for heading, name in lost.items() if _count(pipelines, [name])}
    own = [s.name for e in _executables(pipelines) for s in e.statistics]
    unknown = {one_line(n): n.lower() for n in list(dict.fromkeys(own))[:_UNKNOWN_COLUMNS]}
    return {**sizes, **lost} or unknown


def _said(
    pipelines: Sequence[PipelineStatistics], columns: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Of ``columns`` those that the driver fills, with its name for each, in lower case."""
    said = {name for e in _executables(pipelines) for name in _values(e)}
    known = {heading: [n for n in names if n in said] for heading, names in columns.items()}
    return {heading: names[0] for heading, names in known.items() if names}


def _count(pipelines: Sequence[PipelineStatistics], names: Collection[str]) -> int:
    """The pipelines of which one of these statistics is above 0."""
    return sum(
        any(_values(e).get(name, 0) > 0 for e in p.executables for name in names) for p in pipelines
    )


def _differences(pipelines: Sequence[PipelineStatistics]) -> list[str]:
    """What tells each pipeline from the others of its kernel: as few settings as will do."""
    settings = [_settings(p) for p in pipelines]
    telling: dict[str, list[str]] = {}
    for kernel in dict.fromkeys(p.kernel for p in pipelines):
        own = [s for p, s in zip(pipelines, settings, strict=True) if p.kernel == kernel]
        names = list(dict.fromkeys(name for setting in own for name in setting))
        for name in reversed(names.copy()):
            fewer = [n for n in names if n != name]
            if len({tuple(s.get(n) for n in fewer) for s in own}) == len(own):
                names = fewer
        telling[kernel] = names
    return [
        " ".join(f"{name}={own[name]}" for name in telling[p.kernel] if name in own)
        for p, own in zip(pipelines, settings, strict=True)
    ]


def _settings(pipeline: PipelineStatistics) -> dict[str, str]:
    """The variant, and the constants as numbers (a truth value is 0 or 1)."""
    constants = {name: f"{float(v):g}" for name, v in pipeline.specialization.items()}
    return {**pipeline.variant, **constants}


def _summary(found: ModelPipelines) -> str:
    pipelines = found.pipelines
    if not pipelines:
        return "none: no node runs on the device"
    spilling, scratch = (_said(pipelines, columns).values() for columns in (_SPILLED, _SCRATCH))
    verdicts = []
    for names, one, many in (
        (spilling, "spills registers", "spill registers"),
        (scratch, "takes scratch memory", "take scratch memory"),
    ):
        count = _count(pipelines, names)
        if names:
            verdicts.append(f"{count or 'none'} {many if count > 1 else one}")
    told = ", ".join(verdicts) or "the driver does not say which of them spill registers"
    dispatches = f"{found.dispatches} dispatch{'es' * (found.dispatches != 1)}"
    return f"{len(pipelines)} for {dispatches}: {told}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
