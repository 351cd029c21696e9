#!/usr/bin/env python3
"""What a GPU's compiler makes of the kernels of some nets: how many of them spill. Nothing is run.

    python scripts/bench_pipelines.py yolov7-tiny.onnx resnet50.onnx...

A row of docs/benchmarks/2026-11-22-gpu-compilers.md, for the device that Vulkan finds; a pipeline
that several nets use is counted once. The standard suite's nets: scripts/bench_nets.py. A compiler
without its GPU: docs/guide.md, "What the driver's compiler makes of the kernels".
"""

from __future__ import annotations

import sys
from typing import Any

from vkconv.cli.pipeline_report import spills
from vkconv.device.vulkan.statistics import PipelineStatistics
from vkconv.pipeline_statistics import compile_pipelines

#: what drivers call the registers of an invocation
REGISTERS = ("VGPRs", "Registers used")


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    found: dict[Any, list[PipelineStatistics]] = {}
    for path in sys.argv[1:]:
        net = compile_pipelines(path)
        device = net.device
        for made in net.pipelines:
            spec = {name: float(value) for name, value in made.specialization.items()}
            key = made.kernel, tuple(made.variant.items()), tuple(sorted(spec.items()))
            found.setdefault(key, []).append(made)
    spilling = [uses for uses in found.values() if spills(uses[0])]
    convolutions = [made for uses in found.values() for made in uses if "conv" in made.kernel]
    said = [s for uses in found.values() for e in uses[0].executables for s in e.statistics]
    most = max((s.value for s in said if s.name in REGISTERS), default="")
    wide = [made for made in convolutions if made.executables[0].subgroup_size >= 16]
    cells = (
        device.name,
        device.driver,
        len(found),
        dispatches(made for uses in found.values() for made in uses),
        f"{len(spilling)} ({dispatches(made for uses in spilling for made in uses)})",
        most,
        f"{dispatches(wide)} of {dispatches(convolutions)}",
    )
    print("| GPU | driver | pipelines | dispatches | spill (theirs) | most registers "
          "| convolutions by 16 lanes or more |")  # fmt: skip
    print("| --- " * len(cells) + "|")
    print("| " + " | ".join(map(str, cells)) + " |")
    return 0


def dispatches(pipelines: Any) -> int:
    return sum(made.dispatches for made in pipelines)


if __name__ == "__main__":
    sys.exit(main())
