"""The table of ``vkconv inspect --pipelines`` for what other drivers say than the one at hand."""

from __future__ import annotations

import dataclasses
import io

import pytest

from vkconv.capabilities import DeviceInfo
from vkconv.cli.pipeline_report import print_pipelines, record
from vkconv.cli.terminal import console_on
from vkconv.device.vulkan.statistics import PipelineExecutable, PipelineStatistics, Statistic
from vkconv.pipeline_statistics import ModelPipelines

DEVICE = DeviceInfo(0, "Card", "discrete", "driver 1", "1.3.0", 1 << 30, ())


def executable(name: str = "Compute", **values: float) -> PipelineExecutable:
    said = tuple(Statistic(n.replace("_", " "), f"about {n}", v) for n, v in values.items())
    return PipelineExecutable(name, f"{name} shader", 0, said)


def pipeline(
    kernel: str, dispatches: int, *made: PipelineExecutable, **spec: float
) -> PipelineStatistics:
    return PipelineStatistics(kernel, {"access": "ssbo"}, spec, dispatches, made)


def printed(*pipelines: PipelineStatistics, deferred: int = 0) -> list[str]:
    """The lines, blanks as one."""
    stream = io.StringIO()
    print_pipelines(console_on(stream), "net.onnx", ModelPipelines(DEVICE, pipelines, deferred))
    return [" ".join(line.split()) for line in stream.getvalue().splitlines() if line]


def test_several_executables_of_a_pipeline() -> None:
    """As Intel's driver has it."""
    widths = [
        executable(f"SIMD{n}", Instruction_Count=n * 10, Spill_Count=s, Fill_Count=2 * s,
                   Scratch_Memory_Size=1024 * s)
        for n, s in ((8, 0), (16, 0), (32, 7))
    ]  # fmt: skip
    head, _, *rows = printed(pipeline("conv2d", 3, *widths), pipeline("pool", 2, widths[0]))
    assert head == "kernel differs in executable dispatches instructions spills fills scratch"
    assert rows[:4] == [
        "conv2d SIMD8 3 80 0 0 0",
        "SIMD16 160 0 0 0",
        "SIMD32 320 7 14 7168",
        "pool SIMD8 2 80 0 0 0",
    ]
    assert rows[-1] == ("pipelines 2 for 5 dispatches: 1 spills registers, 1 takes scratch memory")


def test_widths_that_the_driver_chose() -> None:
    narrow, wide = (
        dataclasses.replace(executable(VGPRs=8), subgroup_size=size) for size in (8, 16)
    )
    rows = printed(pipeline("a", 2, narrow), pipeline("b", 1, wide))
    assert rows[0] == "kernel differs in dispatches subgroup VGPRs"
    assert rows[2:4] == ["a 2 8 8", "b 1 16 8"]
    assert "subgroup" not in printed(pipeline("a", 2, wide), pipeline("b", 1, wide))[0]


def test_pipelines_that_spill_are_counted() -> None:
    rows = printed(
        pipeline("a", 1, executable(VGPRs=8, Spilled_VGPRs=1, Spilled_SGPRs=0), TILE=1),
        pipeline("a", 1, executable(VGPRs=9, Spilled_VGPRs=0, Spilled_SGPRs=2), TILE=2, WIDE=True),
        pipeline("b", 1, executable(VGPRs=7, Spilled_VGPRs=0, Spilled_SGPRs=0), TILE=1),
    )
    assert rows[0] == "kernel differs in dispatches VGPRs spilled VGPRs spilled SGPRs"
    assert rows[2:5] == ["a TILE=1 1 8 1 0", "a TILE=2 1 9 0 2", "b 1 7 0 0"]
    assert rows[-1] == "pipelines 3 for 3 dispatches: 2 spill registers"


@pytest.mark.parametrize(
    ("values", "headings", "cells"),
    [
        ({"Registers_used": 12, "Max_Waves_Per_Core": 16, "Code_size": 300, "STP_Count": 0},
         "registers occupancy code size", "12 16 300"),
        ({"Cycles": 1.5, "Instructions": 9, "Threads": 4, "Spills": 0},
         "occupancy instructions", "4 9"),
        ({"Weight": 1.5, "Height": 2, "Is_Small": True}, "Weight Height Is Small", "1.5 2 True"),
        ({}, "", ""),
    ],
)  # fmt: skip
def test_other_names(values: dict[str, float], headings: str, cells: str) -> None:
    head, _, row, *_, last = printed(pipeline("pool", 2, executable(**values)))
    assert head == f"kernel differs in dispatches {headings}".strip()
    assert row == f"pool 2 {cells}".strip()
    tells = any(name in values for name in ("STP_Count", "Spills"))
    assert last.endswith("none spills registers" if tells else "which of them spill registers")


def test_a_driver_that_says_nothing_at_all() -> None:
    lines = printed(pipeline("pool", 1), deferred=1)
    assert lines[2] == "pool 1"
    assert lines[-1].startswith("deferred 1 node left out")
    found = ModelPipelines(DEVICE, [pipeline("pool", 1)], 0)
    assert record("net.onnx", found)["pipelines"][0]["executables"] == []


def test_control_characters_do_not_reach_the_terminal() -> None:
    lines = printed(pipeline("a\x1b[31mb", 1, executable("S\x1b[0m", **{"W\x1b[1m": 1})))
    assert "\x1b" not in "".join(lines)
